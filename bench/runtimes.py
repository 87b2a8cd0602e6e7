"""Each shipped module on torch and on ONNX Runtime, in one process, in turns: milliseconds per item and their ratio.

`python bench/runtimes.py [FOLDER]`; FOLDER is what `s2m3 weights --light --into FOLDER` made [the user's cache].
Prints a line of JSON for each. Below 1, ONNX Runtime is faster. The fastest of the rounds counts: the machine may have
other work.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.exports import exported_parts
from s2m3.agents.runtimes import onnx
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.serving.module import Module
from s2m3.schemas.definitions import shipped_catalogue

ROUNDS, THREADS = 9, (1, 2)
SAMPLES = Path(str(files("s2m3").joinpath("samples")))


def inputs_of(module_id: str, number: int) -> Mapping[str, Any]:
    """Returns an item of a module; texts differ from item to item, because rows of known texts are remembered."""
    texts = [f"a photo of a cat, number {number}", f"a cup of coffee, number {number}", f"a rocket, number {number}"]
    found: dict[str, Mapping[str, Any]] = {
        "efficientnet-lite0": {"image": [(SAMPLES / "chelsea.jpg").read_bytes()]},
        "minilm": {"text": texts},
        "whisper-tiny-en-encoder": {"audio": (SAMPLES / "quick-brown-fox.flac").read_bytes()},
    }
    return found[module_id]


OUTPUT = {"efficientnet-lite0": "features", "minilm": "embedding", "whisper-tiny-en-encoder": "hidden"}


def timed(module: Module, module_id: str, number: int) -> float:
    """Returns the milliseconds of one item, its preparation too."""
    inputs = inputs_of(module_id, number)
    began = time.perf_counter()
    module.run([module.prepare(inputs)], frozenset({OUTPUT[module_id]}))
    return 1e3 * (time.perf_counter() - began)


def measured(load: Callable[[str], Module], module_id: str) -> dict[str, float]:
    """Returns both runtimes' milliseconds, the fastest and the median of rounds in turns, and the ratios."""
    modules = {runtime: load(runtime) for runtime in (TORCH, ONNX)}
    times: dict[str, list[float]] = {TORCH: [], ONNX: []}
    for number in range(-2, ROUNDS):
        for runtime, module in modules.items():
            taken = timed(module, module_id, number)
            if number >= 0:
                times[runtime].append(taken)
    found = {f"{runtime}_ms": round(min(taken), 2) for runtime, taken in times.items()}
    median = {runtime: statistics.median(taken) for runtime, taken in times.items()}
    return found | {
        "ratio": round(min(times[ONNX]) / min(times[TORCH]), 3),
        "ratio_of_medians": round(median[ONNX] / median[TORCH], 3),
    }


def main() -> None:
    """Measures and prints."""
    exports = exported_parts(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    specs = shipped_catalogue().modules
    for module_id in OUTPUT:
        for threads in THREADS:
            torch.set_num_threads(threads)
            onnx.set_threads(threads)

            def load(runtime: str, module_id: str = module_id) -> Module:
                return registry.load(specs[module_id], CheckpointSources(runtimes=(runtime,), exports=exports))

            row = {"module": module_id, "threads": threads, **measured(load, module_id)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
