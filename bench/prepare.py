"""This release against commit 4fc0481, in turns: pictures of 12 megapixels, and each task with 1 outstanding.

Every picture, sound and text differs from all before it, so that nothing is answered from memory. With one core kept
busy by another process and without. Run: python bench/prepare.py [--rounds N] [--limit-s S] [--json FILE]

With --exports FOLDER, this release's agents have what `s2m3 weights --light --into FOLDER` made, and use the faster
runtime; without, torch.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from camera import numbered
from PIL import Image

from s2m3.client import Client, Reply
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.demo import TASKS, Case, shipped_cases
from s2m3.schemas import messages as m
from s2m3.snapshot import Site

ROOT = Path(__file__).parents[1]
OLD_COMMIT = "4fc0481"
_MEGAPIXELS = (4000, 3000)
#: memory of each agent, 10^6 bytes: room for large pictures beside the modules
_NODES = {"pi": 1200.0, "laptop": 1200.0, "desktop": 1200.0}
_READY_S, _ASK_S = 180.0, 120.0
#: Requests of each task, per release and round, at 1 outstanding.
_REPEATS = 5
#: What is asked for: pictures per second against the old release, and a request's time, with room for noise.
_TIMES_AS_MANY, _NO_SLOWER = 1.6, 1.05
_number = count()


class _OldCluster(Cluster):
    """A cluster of the old release, which does not know every flag of today's."""

    def _spawn(self, name: str, command: str, *flags: str) -> None:
        at = flags.index("--parts") if "--parts" in flags else len(flags)
        super()._spawn(name, command, *flags[:at], *flags[at + 2 :])


class _Release:
    """A site of one release's code, and a client of it."""

    def __init__(self, name: str, tree: Path, stack: ExitStack, threads: int, exports: Path) -> None:
        self.name = name
        cluster = (Cluster if tree == ROOT else _OldCluster)(_NODES, threads=threads)
        cluster.environment = {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "S2M3_EXPORTS": str(exports)}
        stack.enter_context(cluster)
        site = stack.enter_context(Site(cluster.settings))
        self.client = stack.enter_context(Client(settings=cluster.settings))
        for task in TASKS:
            add_task(site, task, m.TaskSpec(model=task, deadline_s=_ASK_S))
        if not site.wait(lambda s: all(s.ready(task) for task in TASKS), _READY_S):
            logs = {process: cluster.log(process)[-800:] for process in cluster.processes}
            raise SystemExit(f"{name} is not ready: {logs}")

    def rate(self, pictures: int, outstanding: int, picture: bytes) -> float:
        """Returns classifications per second of so many pictures, all different, with so many outstanding."""
        waiting: list[Reply] = []
        began = time.perf_counter()
        for _ in range(pictures):
            if len(waiting) == outstanding:
                waiting.pop(0).result(_ASK_S)
            waiting.append(self.client.submit("classification", image=numbered(picture, next(_number))))
        for reply in waiting:
            reply.result(_ASK_S)
        return pictures / (time.perf_counter() - began)

    def latency_ms(self, case: Case) -> float:
        """Returns the milliseconds of one request, alone."""
        inputs = {name: _different(name, value) for name, value in case.inputs.items()}
        began = time.perf_counter()
        self.client.ask(case.task, deadline_s=_ASK_S, **inputs)
        return (time.perf_counter() - began) * 1000


def _different(name: str, value: Any) -> Any:
    """Returns an input as no request has had it before, and with the same work in it."""
    if isinstance(value, list):
        return [_different(name, one) for one in value]
    number = next(_number)
    if name == "image":
        data = value.read_bytes()
        return numbered(data, number) if data[:2] == b"\xff\xd8" else _repainted(data, number)
    if name == "audio":
        samples, rate = soundfile.read(value, dtype="int16")
        samples[-1 - number % 1000] += 1 + number // 1000
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="WAV")
        return file.getvalue()
    return f"{value} {number}"


def _repainted(data: bytes, number: int) -> bytes:
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    pixels[0, 0] = (number % 256, number // 256 % 256, 7)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def large_picture() -> bytes:
    """Returns a JPEG of 12 megapixels, with the grain of a camera's sensor."""
    small = Image.open(ROOT / "s2m3" / "samples" / "chelsea.jpg").convert("RGB").resize(_MEGAPIXELS)
    grain = np.random.default_rng(7).normal(0, 4, (*_MEGAPIXELS[::-1], 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


@contextmanager
def _busy(cores: int) -> Iterator[None]:
    """Context in which other processes keep so many cores busy."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _old_tree(folder: str) -> Path:
    packed = subprocess.run(["git", "archive", OLD_COMMIT], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return Path(folder)


def _in_turns(sites: Sequence[_Release], turn: int) -> Sequence[_Release]:
    """Returns the releases, the other one first in every second turn."""
    return sites if turn % 2 else sites[::-1]


def measure(
    rounds: int, pictures: int, outstanding: int, threads: int, limit_s: float, *, exports: Path | None
) -> dict[str, Any]:
    """Returns the medians of both releases and their ratios, with no core busy and with one.

    Args:
        rounds: At most so many of each; at least one.
        pictures: Of one round, per release.
        outstanding: Pictures under way at once.
        threads: Compute threads of each agent.
        limit_s: Seconds of all rounds together, after which none begins.
        exports: What `s2m3 weights --light` made; None: the new release has torch alone.
    """
    found: dict[str, Any] = {}
    picture, cases = large_picture(), {case.task: case for case in reversed(shipped_cases()) if case.task in TASKS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        none = Path(folder) / "exports"
        none.mkdir()
        old = _Release("old", _old_tree(folder), stack, threads, none)
        sites = [old, _Release("new", ROOT, stack, threads, exports or none)]
        for site in sites:  # warms up
            site.rate(8, 8, picture)
            for case in cases.values():
                site.latency_ms(case)
        for busy in (0, 1):
            rates: dict[str, list[float]] = {site.name: [] for site in sites}
            times: dict[tuple[str, str], list[float]] = {}
            end = time.monotonic() + limit_s / 2
            with _busy(busy):
                for done in range(rounds):
                    if done and time.monotonic() > end:
                        break
                    for site in _in_turns(sites, done):
                        rates[site.name].append(site.rate(pictures, outstanding, picture))
                    for (task, case), turn in product(cases.items(), range(_REPEATS)):
                        for site in _in_turns(sites, turn):
                            times.setdefault((task, site.name), []).append(site.latency_ms(case))
            per_s = {name: statistics.median(values) for name, values in rates.items()}
            p50 = {key: statistics.median(values) for key, values in times.items()}
            found[f"{busy} busy"] = {
                "rounds": len(rates["new"]),
                "pictures_per_s": per_s,
                "times_as_many": per_s["new"] / per_s["old"],
                "p50_ms": {task: {name: p50[task, name] for name in ("old", "new")} for task in cases},
                "latency_ratio": {task: p50[task, "new"] / p50[task, "old"] for task in cases},
            }
    return {
        "picture_bytes": len(picture),
        "outstanding": outstanding,
        "threads": threads,
        "exports": exports is not None,
        **found,
    }


def main() -> None:
    """Measures, prints the ratios, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--outstanding", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--limit-s", type=float, default=480.0, help="of all rounds; starting both takes 1 to 2 minutes"
    )
    parser.add_argument("--exports", type=Path, help="folder that `s2m3 weights --light` made")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "prepare.json")
    given = parser.parse_args()
    found = measure(
        given.rounds, given.pictures, given.outstanding, given.threads, given.limit_s, exports=given.exports
    )
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(found, indent=1))
    for name in ("0 busy", "1 busy"):
        shown = found[name]
        verdict = "as asked for" if shown["times_as_many"] >= _TIMES_AS_MANY else f"below x{_TIMES_AS_MANY}"
        rates = ", ".join(f"{release} {rate:.1f}" for release, rate in shown["pictures_per_s"].items())
        times = f"x{shown['times_as_many']:.2f} pictures per second ({rates})"
        print(f"{name}, {shown['rounds']} rounds: {times}, {verdict}")
        for task, ratio in shown["latency_ratio"].items():
            slower = "" if ratio <= _NO_SLOWER else "  SLOWER"
            print(
                f"  {task}: x{ratio:.2f} of the time at 1 outstanding ({shown['p50_ms'][task]['new']:.1f} ms){slower}"
            )


if __name__ == "__main__":
    main()
