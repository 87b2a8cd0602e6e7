"""S2M3 beside what people would pick instead, on the same modules and inputs, on this machine, in turns.

Peers: one FastAPI process (torch), one with ONNX Runtime and faster-whisper int8, Ray Serve as a composition, an MQTT
worker per model, and S2M3 itself with as many threads for each agent as the machine has cores. Measures latency with
one request at a time, throughput with 8 and 32 outstanding, the memory of all processes, and what a `kill -9` of the
process that encodes pictures costs. Each peer runs alone, in every round; ratios are to S2M3 with one thread for each
agent in the same round. Needs a machine with nothing else to do.

Run: pip install --target .peers -c deploy/constraints.txt -r bench/peers-requirements.txt
     python bench/peers.py [--rounds 3] [--only ours,cores,torch,onnx,ray,mqtt] [--quick]
     python bench/peers.py --light 2 [--threads 2] [--rounds 3]   # agents without torch beside FastAPI on ONNX Runtime
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any

import psutil
from peer_servers.inputs import Asked, inputs_of
from peer_servers.modules import TASKS
from peer_servers.peers import FastApi, Light, MqttWorkers, Ours, Peer, RayServe
from tables import Table, measured_on, quiet_libraries
from urllib3.exceptions import HTTPError

from s2m3 import logs
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.exports import exports_cache
from s2m3.agents.parts.exporting import exported_digest
from s2m3.agents.registry.exported import EXPORTABLE
from s2m3.agents.runtimes.network import TORCH
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import S2M3Error

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "peers.json"
_OUTSTANDING = (8, 32)
#: The tasks whose throughput is measured, and what it is called.
_THROUGHPUT = {"retrieval": "retrievals", "classification": "classifications"}
#: After a kill, a request without a reply counts as lost after so long, seconds.
_LOST_S = 10.0
#: Longest time after the usual end in which an answer is still waited for, seconds.
_MOST_S = 120.0
#: Key -> (what it needs besides our own packages, name).
_NEEDS = {
    "ours": (),
    "cores": (),
    "torch": ("fastapi", "uvicorn", "python_multipart"),
    "onnx": ("fastapi", "uvicorn", "python_multipart", "onnxruntime", "faster_whisper", "onnx"),
    "ray": ("ray", "fastapi"),
    "mqtt": (),
}
#: Words of the right answers.
_EXPECTED = {"retrieval": "cat", "classification": "mau", "transcription": "fox"}


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is asked: requests one at a time for each task, requests of a throughput, seconds of a kill."""

    latency: int
    slow: int
    throughput: int
    kill_s: float


def measure(peer: Peer, counts: Counts, tasks: Sequence[str]) -> dict[str, Any]:
    """Returns one peer's figures of one round; it is started before and stopped after."""
    began = time.monotonic()
    with peer:
        found: dict[str, Any] = {"start_s": time.monotonic() - began}
        for task in tasks:
            found[f"{task}_ms"] = latency_ms(peer, task, counts)
        for task, outstanding in product(_THROUGHPUT, _OUTSTANDING):
            figure = f"{_THROUGHPUT[task]}_s_at_{outstanding}"
            found[figure] = throughput(peer, task, outstanding, counts.throughput)
        found |= memory_mb(peer)
        if counts.kill_s:
            found |= after_a_kill(peer, counts.kill_s)
    return found


def latency_ms(peer: Peer, task: str, counts: Counts) -> float:
    """Returns the median latency of a task with one request at a time, ms."""
    number = counts.slow if task == "transcription" else counts.latency
    taken = []
    for warm, asked in enumerate(islice(inputs_of(task, "latency"), number + 3)):
        began = time.perf_counter()
        answer = peer.ask(task, asked)
        if _EXPECTED[task] not in str(answer).lower():
            raise RuntimeError(f"{peer.name}: {task} answered {answer!r}")
        if warm >= 3:  # noqa: PLR2004  # the first ones warm up
            taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def throughput(peer: Peer, task: str, outstanding: int, number: int) -> float:
    """Returns answers a second with so many outstanding."""
    asked = inputs_of(task, f"{outstanding} outstanding")
    with ThreadPoolExecutor(outstanding) as pool:
        list(pool.map(lambda one: peer.ask(task, one), islice(asked, outstanding)))
        began = time.perf_counter()
        list(pool.map(lambda one: peer.ask(task, one), islice(asked, number)))
        return number / (time.perf_counter() - began)


def memory_mb(peer: Peer) -> dict[str, float]:
    """Returns the memory of all processes, 10^6 bytes: resident, and proportional, which counts shared pages once."""
    held: dict[str, float] = {"rss_mb": 0.0, "pss_mb": 0.0}
    for root in peer.roots():
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                full = process.memory_full_info()
                held["rss_mb"] += full.rss / 1e6
                held["pss_mb"] += getattr(full, "pss", full.uss) / 1e6
    return held


def after_a_kill(peer: Peer, seconds: float) -> dict[str, Any]:
    """Asks one classification after another, kills -9 a process that they need, and goes on.

    Returns the longest time between two answers, s, and the requests that failed.
    """
    failed, serves = 0, True
    asked: Iterator[Asked] = inputs_of("classification", "kill")
    peer.ask("classification", next(asked))
    answered = [time.monotonic()]
    peer.patience_s = _LOST_S
    victim = peer.victim()
    killer = threading.Timer(min(2.0, seconds / 4), victim.kill)
    killer.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until or (not serves and time.monotonic() < until + _MOST_S):
        try:
            peer.ask("classification", next(asked))
        except Exception:  # noqa: BLE001  # whatever a peer's client raises is a request without an answer
            failed, serves = failed + 1, False
            time.sleep(0.05)
        else:
            serves = True
            answered.append(time.monotonic())
    killer.join()
    gaps = [after - before for before, after in pairwise(answered)]
    return {"kill_gap_s": max(gaps, default=float("nan")), "kill_failed": failed}


def makers(given: argparse.Namespace, folder: Path, tasks: Sequence[str]) -> dict[str, Callable[[], Peer]]:
    """Returns, by key, how each peer is made."""
    peers, threads = given.peers, given.threads if given.light else None
    light = Light(folder / "exports", given.light) if given.light else None
    return {
        "ours": lambda: Ours(max(1, given.threads // given.light) if given.light else 1, tasks, light),
        "cores": lambda: Ours(os.cpu_count() or 1),
        "torch": lambda: FastApi(folder, peers, None),
        "onnx": lambda: FastApi(folder, peers, folder / "onnx", threads),
        "ray": lambda: RayServe(folder, peers),
        "mqtt": lambda: MqttWorkers(folder),
    }


def missing(key: str) -> list[str]:
    """Returns the packages of a peer that are not installed."""
    return [package for package in _NEEDS[key] if find_spec(package) is None]


def table(rounds: dict[str, list[dict[str, Any]]]) -> Table:
    """Returns the medians of all rounds, and of each figure the median ratio to ours in the same round, if it ran."""
    ours = rounds.get("ours", [])
    names = list(next((found[0] for found in rounds.values() if found), {}))
    rows = []
    for name in names:
        row: list[Any] = [name]
        for found in rounds.values():
            value = statistics.median(one[name] for one in found)
            ratios = [one[name] / our[name] for one, our in zip(found, ours, strict=bool(ours)) if our[name]]
            row += [float(value), statistics.median(ratios) if ratios else None]
        rows.append(row)
    columns = [column for key in rounds for column in (key, f"{key} / ours")]
    return Table("peers", ["figure", *columns], rows)


def _versions() -> dict[str, str]:
    """Returns the versions of the peers that are installed."""
    found = {}
    for name in ("fastapi", "uvicorn", "onnxruntime", "faster-whisper", "ctranslate2", "ray", "paho-mqtt", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _export(folder: Path, peers: Path) -> None:
    """Exports the networks for ONNX Runtime in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "peer_servers.onnx_modules", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(peers)])}
    done = subprocess.run(command, check=False, cwd=ROOT / "bench", env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the export for ONNX Runtime failed: {done.stderr[-2000:]}")


def _export_ours(folder: Path, tasks: Sequence[str]) -> None:
    """Exports our modules for agents without torch, each in a process of its own."""
    catalogue, cache = shipped_catalogue(), exports_cache(folder)
    for name in sorted({module for task in tasks for module in catalogue.models[task].module_ids}):
        if catalogue.modules[name].class_ in EXPORTABLE:
            exported_digest(catalogue.modules[name], CheckpointSources(runtimes=(TORCH,)), cache)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="peers, with commas between; ours is always there")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers", help="folder of bench/peers-requirements.txt")
    parser.add_argument("--quick", action="store_true", help="few requests: to see that it works")
    parser.add_argument("--light", type=int, metavar="AGENTS", help="ours without torch: so many agents; no kill")
    parser.add_argument(
        "--threads", type=int, default=2, help="with --light: compute threads of all agents, or of FastAPI"
    )
    return parser.parse_args()


def _counts(given: argparse.Namespace) -> Counts:
    counts = Counts(3, 1, 16, 6.0) if given.quick else Counts(60, 15, 300, 20.0)
    return replace(counts, kill_s=0.0) if given.light else counts


def main() -> None:
    """Measures all peers in turns."""
    given = _options()
    logs.configure(verbose=False, quiet=True)
    quiet_libraries()
    sys.path.append(str(given.peers))
    counts = _counts(given)
    tasks = list(_THROUGHPUT) if given.light else list(TASKS)
    only = (given.only or ("onnx" if given.light else ",".join(_NEEDS))).split(",")
    wanted = [key for key in _NEEDS if key == "ours" or key in only]
    for key in list(wanted):
        if absent := missing(key):
            print(f"{key}: skipped, {', '.join(absent)} not installed (bench/peers-requirements.txt)")
            wanted.remove(key)
    versions = _versions()
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    rounds: dict[str, list[dict[str, Any]]] = {key: [] for key in wanted}
    failed: set[str] = set()
    results = RESULTS.with_stem("peers_light") if given.light else RESULTS
    with tempfile.TemporaryDirectory(prefix="s2m3-peers-") as name:
        folder = Path(name)
        if "onnx" in wanted:
            _export(folder / "onnx", given.peers)
        if given.light:
            _export_ours(folder / "exports", tasks)
        made = makers(given, folder, tasks)
        for turn in range(given.rounds):
            for key in wanted[turn % len(wanted) :] + wanted[: turn % len(wanted)]:
                try:
                    found = measure(made[key](), counts, tasks)
                except (RuntimeError, HTTPError, OSError, S2M3Error, psutil.Error) as error:
                    print(f"round {turn + 1}, {key}: failed, {type(error).__name__}: {error}", flush=True)
                    failed.add(key)
                    continue
                rounds[key].append(found)
                shown = ", ".join(f"{what} {value:.4g}" for what, value in found.items())
                print(f"round {turn + 1}, {key}: {shown}", flush=True)
            summary = table({key: found for key, found in rounds.items() if key not in failed})
            write(results, summary, {"measured": measured_on([0]), "peers": versions, "rounds": rounds})
    print(summary.markdown())
    print(f"written to {results}")


def write(results: Path, summary: Table, result: dict[str, Any]) -> None:
    """Writes the figures of all rounds so far: a run that is ended early keeps them."""
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    results.with_suffix(".csv").write_text(summary.csv(), encoding="utf-8")


if __name__ == "__main__":
    main()
