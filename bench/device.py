"""A node on a device against one bare process on the same device: pictures, speech and writing; prints ratios.

The bare process decodes, prepares and computes in one thread at 1 outstanding, and as a loader with as many decoding
threads as the node's, in batches, at more. Pictures differ from each other, so that nothing is answered from memory.

On a machine with a GPU:  python bench/device.py --device cuda:0 --checkpoints FOLDER --json docs/device-bench.json
Here, in small:           python bench/device.py --device cpu --small
FOLDER holds checkpoints of transformers: clip-vit-large-patch14, whisper-large-v3-turbo, llama-3.2-1b-instruct, or
what --pictures, --speech and --writing name; a missing one is passed over, and the JSON says so.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from camera import PICTURES, numbered

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device, open_device, put_on
from s2m3.agents.exports import exported_parts
from s2m3.agents.registry import load, runtime_of
from s2m3.agents.runtimes.network import ONNX, TORCH, installed_runtimes
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.agents.threads import compute_threads, limit_threads, preparing_threads
from s2m3.client import Client, Reply
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import Definition, ModuleSpec, shipped_catalogue
from s2m3.schemas.settings import AgentSettings
from s2m3.snapshot import Site

ROOT = Path(__file__).parents[1]
SOUND = (ROOT / "s2m3" / "samples" / "quick-brown-fox.flac").read_bytes()
_READY_S, _ASK_S = 900.0, 300.0
_SIZES, _BATCH = (8, 32, 64), 32
#: With --small: a sound takes one core a second and more.
_SMALL_ITEMS, _SMALL_SIZES, _SMALL_BATCH = 8, (4, 8), 8


class Case:
    """One module, its inputs, and how many items a measurement takes."""

    def __init__(self, name: str, spec: ModuleSpec, port: str, output: str, given: Callable[[int], Any]) -> None:
        self.name, self.spec, self.port, self.output, self.given = name, spec, port, output, given

    def route(self) -> m.RouteDoc:
        """Returns the route of a task that is this module alone."""
        kind: Any = self.spec.inputs[self.port]
        step = m.RouteStep(
            module=self.spec.id,
            inputs={self.port: f"input.{self.port}"},
            outputs=[self.output],
            replicas=[m.Replica(node="node", ms=1.0)],
        )
        return m.RouteDoc(
            epoch=1, revision=1, model=self.name, inputs={self.port: kind}, answer=[self.output], deadline_s=_ASK_S,
            steps={"only": step},
        )  # fmt: skip


def _first(definition: Definition, port: str) -> tuple[ModuleSpec, str]:
    """Returns the module that takes an input, and its first output."""
    specs = {spec.id: spec for spec in definition.modules}
    for name, step in definition.model.steps.items():
        if f"input.{port}" in step.inputs.values():
            return specs[step.module], definition.model.wanted_outputs(name)[0]
    raise SystemExit(f"{definition.model.id} takes no {port}")


def cases(folder: Path | None, names: dict[str, str]) -> tuple[list[Case], list[str]]:
    """Returns what is measured, and what is missing; without a folder, the shipped small models."""
    given: dict[str, Callable[[int], Any]] = {
        "image": lambda number: numbered(PICTURES[number % len(PICTURES)], number),
        "audio": lambda number: SOUND + number.to_bytes(4, "little"),
        "text": lambda number: f"Story {number}: tell me about the sea, the wind and a small boat.",
    }
    if folder is None:
        modules = shipped_catalogue().modules
        return [
            Case("pictures", modules["efficientnet-lite0"], "image", "features", given["image"]),
            Case("speech", modules["whisper-tiny-en-encoder"], "audio", "hidden", given["audio"]),
        ], ["writing: no shipped model writes from a text alone"]
    found, missing = [], []
    for name, port in (("pictures", "image"), ("speech", "audio"), ("writing", "text")):
        path = folder / names[name]
        if not path.is_dir():
            missing.append(f"{name}: {names[name]}")
            continue
        spec, output = _first(definition_of(read_checkpoint(path), names[name]), port)
        found.append(Case(name, spec, port, output, given[port]))
    return found, missing


def sources_of(folder: Path | None, device: Device) -> CheckpointSources:
    """Returns where an agent on a device finds modules, and what runs them there, as `s2m3 agent` has it."""
    runtimes = installed_runtimes() if device.is_cpu else (TORCH,)
    exports = exported_parts(AgentSettings(node="bare").exports)
    return CheckpointSources((folder,) if folder else (), runtimes=runtimes, exports=exports)


class Bare:
    """One process without a bus: the module's own code on the device, run by what runs it in an agent."""

    def __init__(self, case: Case, device: Device, folder: Path | None, compute: int, dtype: Any) -> None:
        spec = case.spec.model_copy(update={"dtype": case.spec.dtype or dtype})
        self._case, self._threads = case, preparing_threads(compute, device.name)
        sources = sources_of(folder, device)
        self.runtime = runtime_of(spec, sources)
        if self.runtime == ONNX:
            import_module("s2m3.agents.runtimes.onnx").set_threads(compute)
        self._module = load(spec, sources)
        if self.runtime == TORCH:
            put_on(self._module, device)

    def _run(self, batch: Sequence[Any]) -> None:
        if hasattr(self._module, "generates"):
            write_all(self._module, batch)  # type: ignore[arg-type]  # it is a generator
        else:
            self._module.run(batch, frozenset({self._case.output}))

    def _prepared(self, number: int) -> Any:
        return self._module.prepare({self._case.port: self._case.given(number)})

    def latency_ms(self, items: range) -> float:
        """Returns the median milliseconds of one item after the other."""
        return statistics.median(_timed_ms(partial(self._one, number)) for number in items)

    def _one(self, number: int) -> None:
        self._run([self._prepared(number)])

    def per_second(self, items: range, batch: int) -> float:
        """Returns items per second, prepared in threads and run in batches."""
        began = time.perf_counter()
        with ThreadPoolExecutor(self._threads) as pool:
            ahead = pool.map(self._prepared, items)
            waiting: list[Any] = []
            for prepared in ahead:
                waiting.append(prepared)
                if len(waiting) == batch:
                    self._run(waiting)
                    waiting = []
            if waiting:
                self._run(waiting)
        return len(items) / (time.perf_counter() - began)


def _timed_ms(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def node_per_second(client: Client, case: Case, items: range, outstanding: int) -> float:
    """Returns answers per second of the node with so many outstanding."""
    waiting: list[Reply] = []
    began = time.perf_counter()
    for number in items:
        if len(waiting) == outstanding:
            waiting.pop(0).result(_ASK_S)
        waiting.append(client.submit(case.name, **{case.port: case.given(number)}))
    for reply in waiting:
        reply.result(_ASK_S)
    return len(items) / (time.perf_counter() - began)


def measure_node(case: Case, given: argparse.Namespace, count: int) -> dict[str, Any]:
    """Returns the node's figures: p50 at 1 outstanding, and answers per second at more."""
    flags = ["--device", given.device, *(["--threads", str(given.threads)] if given.threads else [])]
    with Cluster({}, planner=False) as cluster:
        folders = ["--checkpoints", str(given.checkpoints)] if given.checkpoints else []
        more = ["--dtype", given.dtype] if given.dtype else []
        cluster._spawn("node", "agent", "--node", "node", "--queue", "256", *flags, *folders, *more)  # noqa: SLF001
        with Site(cluster.settings) as site, Client(settings=cluster.settings) as client:
            site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=[case.spec]).encode(), node="node")
            site.publish(topics.ROUTE, case.route().encode(), task=case.name)
            site.wait(lambda s: _state(s) == "failed" or (_state(s) == "ready" and s.ready(case.name)), _READY_S)
            if _state(site) != "ready" or not site.ready(case.name):
                raise SystemExit(f"{case.name} is not ready: {cluster.log('node')[-1500:]}")
            numbers = iter(range(10_000, 10_000_000, 10_000))
            node_per_second(client, case, range(next(numbers), next(numbers))[: 2 * max(given.sizes)], max(given.sizes))
            start = next(numbers)
            numbered_items = range(start, start + count)
            times = [_timed_ms(partial(_asked, client, case, number)) for number in numbered_items]
            rates = {}
            for size in given.sizes:
                start = next(numbers)
                rates[size] = node_per_second(client, case, range(start, start + max(count, size)), size)
            profile, (report,) = site.profiles["node"], site.reported["node"].modules.values()
    return {
        "runtime": report.runtime,
        "p50_ms": statistics.median(times),
        "per_s": rates,
        "dtype": profile.dtype,
        "speeds": profile.speeds,
    }


def _asked(client: Client, case: Case, number: int) -> None:
    client.ask(case.name, deadline_s=_ASK_S, **{case.port: case.given(number)})


def _state(site: Site) -> str | None:
    """Returns the state of the node's one module; None while it has not told."""
    reported = site.reported.get("node")
    return next((report.state for report in reported.modules.values()), None) if reported is not None else None


def measure(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """Returns figures of the node and of the bare process, one after the other on the same device, and ratios."""
    count = given.items
    node = measure_node(case, given, count)
    device, threads = open_device(given.device), compute_threads(given.threads)
    bare = Bare(case, device, given.checkpoints, threads, node["dtype"])
    if bare.runtime != node["runtime"]:
        raise SystemExit(f"{case.name}: the node's module is run by {node['runtime']}, the bare one by {bare.runtime}")
    bare.latency_ms(range(5))
    batch = 8 if case.name == "writing" else given.batch
    p50, rate = (
        bare.latency_ms(range(100, 100 + count)),
        bare.per_second(range(1_000, 1_000 + max(count, batch)), batch),
    )
    return {
        "node": node,
        "bare": {"p50_ms": p50, "per_s": rate},
        "latency_of_bare": node["p50_ms"] / p50,
        "rate_of_bare": {size: found / rate for size, found in node["per_s"].items()},
    }


def main() -> None:
    """Measures each case, prints the ratios, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--pictures", default="clip-vit-large-patch14")
    parser.add_argument("--speech", default="whisper-large-v3-turbo")
    parser.add_argument("--writing", default="llama-3.2-1b-instruct")
    parser.add_argument("--dtype", help="fp32, bf16, fp16; default: the node's own choice")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--small", action="store_true", help="few items of the shipped models")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results" / "device.json")
    parser.set_defaults(sizes=_SIZES, batch=_BATCH)
    given = parser.parse_args()
    if given.small:
        given.checkpoints, given.items = None, min(given.items, _SMALL_ITEMS)
        given.sizes, given.batch = _SMALL_SIZES, _SMALL_BATCH
    limit_threads(compute_threads(given.threads))
    torch.set_num_threads(compute_threads(given.threads))
    names = {"pictures": given.pictures, "speech": given.speech, "writing": given.writing}
    todo, missing = cases(given.checkpoints, names)
    found: dict[str, Any] = {"device": open_device(given.device).name, "torch": torch.__version__, "missing": missing}
    for case in todo:
        found[case.name] = measured = measure(case, given)
        rates = ", ".join(f"{ratio:.2f} at {size}" for size, ratio in measured["rate_of_bare"].items())
        print(f"{case.name}: x{measured['latency_of_bare']:.2f} of bare latency; rate of bare: {rates}")
        sys.stdout.flush()
    for name in missing:
        print(f"missing: {name}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
