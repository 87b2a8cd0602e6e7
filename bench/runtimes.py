"""Each shipped module on torch and on ONNX Runtime, in one process, in turns: milliseconds per item and their ratio.

Prints a table: one and two threads, the fastest and the median of the rounds, the runtime that an agent with both uses
and the one that it uses where its memory has no room for torch. Below 1, ONNX Runtime is faster. The fastest round
counts: the machine may have other work. Writes bench/results/runtimes.json.

Needs torch, and the exports that `s2m3 weights --light --into FOLDER` made [the user's cache].
Run: python bench/runtimes.py [FOLDER]
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import Table, measured_on, quiet_libraries

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.exports import exported_parts
from s2m3.agents.memory import keep_freed_memory
from s2m3.agents.runtimes import onnx
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.agents.threads import limit_threads
from s2m3.schemas.definitions import shipped_catalogue

ROUNDS, THREADS = 9, (1, 2)
SAMPLES = Path(str(files("s2m3").joinpath("samples")))
RESULTS = Path(__file__).parent / "results" / "runtimes.json"
#: Module -> the output that is asked for; None of one that writes text.
OUTPUT = {
    "efficientnet-lite0": "features",
    "imagenet-linear": "logits",
    "minilm": "embedding",
    "whisper-tiny-en-encoder": "hidden",
    "whisper-tiny-en-decoder": None,
}
_SPECS = shipped_catalogue().modules


def run(module: Any, inputs: Mapping[str, Any], output: str | None) -> Any:
    """Returns one output of one item, its preparation included; of a decoder, its text."""
    prepared = module.prepare(inputs)
    if output is None:
        return write_all(module, [prepared])[0]
    return module.run([prepared], frozenset({output}))[0][output]


def inputs_of(module_id: str, number: int, hidden: Any) -> Mapping[str, Any]:
    """Returns an item of a module; texts differ from item to item, because rows of known texts are remembered."""
    texts = [f"a photo of a cat, number {number}", f"a cup of coffee, number {number}", f"a rocket, number {number}"]
    found: dict[str, Mapping[str, Any]] = {
        "efficientnet-lite0": {"image": [(SAMPLES / "chelsea.jpg").read_bytes()]},
        "imagenet-linear": {"features": np.linspace(-1, 1, 1_280, dtype=np.float32)[None]},
        "minilm": {"text": texts},
        "whisper-tiny-en-encoder": {"audio": (SAMPLES / "quick-brown-fox.flac").read_bytes()},
        "whisper-tiny-en-decoder": {"hidden": hidden},
    }
    return found[module_id]


def measured(load: Callable[[str], Any], module_id: str, hidden: Any) -> dict[str, float]:
    """Returns both runtimes' milliseconds, the fastest and the median of rounds in turns, and the ratios."""
    modules = {runtime: load(runtime) for runtime in (TORCH, ONNX)}
    times: dict[str, list[float]] = {TORCH: [], ONNX: []}
    for number in range(-2, ROUNDS):
        for runtime, module in modules.items():
            began = time.perf_counter()
            run(module, inputs_of(module_id, number, hidden), OUTPUT[module_id])
            if number >= 0:
                times[runtime].append(1e3 * (time.perf_counter() - began))
    found = {f"{runtime}_ms": min(taken) for runtime, taken in times.items()}
    median = {runtime: statistics.median(taken) for runtime, taken in times.items()}
    return found | {"ratio": min(times[ONNX]) / min(times[TORCH]), "ratio_of_medians": median[ONNX] / median[TORCH]}


def main() -> None:
    """Measures, prints the table and writes the result."""
    quiet_libraries()
    keep_freed_memory()
    exports = exported_parts(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    audio = {"audio": (SAMPLES / "quick-brown-fox.flac").read_bytes()}
    torch_alone = CheckpointSources(runtimes=(TORCH,))
    hidden = run(registry.load(_SPECS["whisper-tiny-en-encoder"], torch_alone), audio, "hidden")
    rows: list[dict[str, Any]] = []
    for threads in THREADS:
        limit_threads(threads)
        torch.set_num_threads(threads)
        onnx.set_threads(threads)
        for module_id in OUTPUT:
            spec = _SPECS[module_id]

            def load(runtime: str, module_id: str = module_id) -> Any:
                return registry.load(_SPECS[module_id], CheckpointSources(runtimes=(runtime,), exports=exports))

            both, light = (CheckpointSources(runtimes=names, exports=exports) for names in ((ONNX, TORCH), (ONNX,)))
            chosen = {"chosen": registry.runtime_of(spec, both), "without_torch": registry.runtime_of(spec, light)}
            rows.append({"module": module_id, "threads": threads, **measured(load, module_id, hidden), **chosen})
    columns = list(rows[0])
    print(Table("runtimes", columns, [[row[name] for name in columns] for row in rows]).markdown())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"measured": measured_on(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
