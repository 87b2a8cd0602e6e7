"""Exports a module's networks to ONNX files, and refuses a file whose outputs are not those of torch.

A part that was written here passed its check: float32 outputs within 1e-5 of torch's, measured against the largest
number of each output (at least 1); those of a smaller dtype that rank as float32 ranks (comparison.py). The distance
and both times are noted in the part.
"""

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import structlog
import torch

from s2m3.agents.memory import keep_freed_memory
from s2m3.agents.parts.cache import CachedPart, PartCache
from s2m3.agents.runtimes.comparison import between, check_ranking, distance_of
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork, Sample
from s2m3.agents.runtimes.exported import MODULE_FILE, ExportedPart, exported_spec
from s2m3.agents.runtimes.float16 import to_float16
from s2m3.agents.runtimes.int8 import to_int8
from s2m3.agents.runtimes.network import ONNX, TORCH, Array
from s2m3.agents.runtimes.onnx import RAISED, OnnxNetwork
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.serving.module import Module
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.parts import part_key
from s2m3.schemas.wire.values import Value

__all__ = ["TOLERANCE", "export_part"]

_log = structlog.get_logger(__name__)
#: Largest distance of an output from torch's, as a share of the output's largest number (at least 1).
TOLERANCE = 1e-5
_OPSET = 18
#: What makes a float32 file one of a smaller dtype.
_SMALLER: Mapping[str, Callable[[Path], None]] = {"float16": to_float16, "int8": to_int8}
#: Bytes from which on a tensor lies beside its file.
_BESIDE = 1_024
#: Runs of which the fastest counts.
_RUNS = 5
#: What torch.onnx raises of a network that it cannot export.
_UNABLE = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


def export_part(
    spec: ModuleSpec,
    module: Module,
    made: Export,
    cache: PartCache,
    *,
    content: str,
    build: Callable[[ExportedPart], Module],
) -> CachedPart:
    """Writes the part of a module into a cache.

    Args:
        spec: The module's definition.
        module: The module, run by torch.
        made: What goes into it.
        cache: Where it is kept.
        content: Fingerprint of the module's weights, 64 hex digits.
        build: Builds a module of an exported part.

    Raises:
        ModuleFailedError: A network cannot be exported, or its outputs are further from torch's than is allowed; the
            text says how far.
        NoCapacityError: The part does not fit into the cache.
    """
    if spec.dtype not in (None, "float32", *_SMALLER):
        raise ModuleFailedError(f"exports are float32, float16 or int8, not {spec.dtype}")
    keep_freed_memory()  # as an agent does: both runtimes' times depend on it
    with tempfile.TemporaryDirectory(prefix="s2m3-export-") as name:
        folder = Path(name)
        distances: dict[str, float] = {}
        seconds = {TORCH: 0.0, ONNX: 0.0}
        for file, exported in made.networks.items():
            distances[file], times = _export(spec, exported, folder / f"{file}.onnx")
            for runtime, taken in times.items():
                seconds[runtime] += taken
        for file, data in made.files.items():
            (folder / file).write_bytes(data)
        distances["items"] = _checked(
            spec, made, module, build(ExportedPart(spec, folder, json.loads(json.dumps(dict(made.notes)))))
        )
        milliseconds = {runtime: round(1e3 * taken, 3) for runtime, taken in seconds.items()}
        said = {
            "module": exported_spec(spec),
            "notes": dict(made.notes),
            "distance": distances,
            "ms": milliseconds,
            "faster": seconds[ONNX] <= seconds[TORCH],
        }
        (folder / MODULE_FILE).write_text(json.dumps(said), encoding="utf-8")
        files = {path.name: path for path in folder.iterdir()}
        part = cache.put(
            files, content=content, runtime=ONNX, dtype=spec.dtype or "float32", keys=[part_key(spec, ONNX)]
        )
    distance = f"{max(distances.values()):.1e}"
    size = round(part.manifest.nbytes / 1e6, 1)
    _log.info("part_exported", module=spec.id, dtype=part.manifest.dtype, mb=size, distance=distance, ms=milliseconds)
    return part


def _export(spec: ModuleSpec, wanted: ExportedNetwork, path: Path) -> tuple[float, dict[str, float]]:
    """Writes one network; returns its distance from torch and both runtimes' times of the first sample, seconds."""
    _write(spec, wanted, path)
    _with_data_beside(path)
    network = OnnxNetwork(path)
    try:
        pairs = [(wanted.network(**sample), network(**_taken(network, sample))) for sample in wanted.samples]
    except RAISED as error:  # a length that was traced as a constant
        raise ModuleFailedError(f"the export of {spec.id} ({path.stem}) is refused: {error}"[:300]) from error
    distance = max(distance_of(*pair) for pair in pairs)
    if not distance <= TOLERANCE:  # NaN too
        raise ModuleFailedError(
            f"the export of {spec.id} ({path.stem}) is refused: its outputs are {distance:.1e} from torch's, "
            f"more than {TOLERANCE:.0e}"
        )
    if (smaller := _SMALLER.get(spec.dtype or "")) is not None:
        del network
        smaller(path)
        _with_data_beside(path)
        network = OnnxNetwork(path)
    first = dict(wanted.samples[0])
    taken = _taken(network, first)
    times = {TORCH: _seconds(wanted.network, first), ONNX: _seconds(network, taken)}
    return distance, times


def _outputs(module: Module, item: Mapping[str, Value], wanted: frozenset[str]) -> dict[str, Value]:
    (found,) = module.run([module.prepare(item)], wanted)
    return found


def _checked(spec: ModuleSpec, made: Export, module: Module, light: Module) -> float:
    """Refuses a module that does not answer as torch's does; returns how far its outputs are from torch's."""
    items = [*made.items, *(made.ranked if spec.dtype in _SMALLER else ())]
    wanted, found = ([_outputs(one, item, made.wanted) for item in items] for one in (module, light))
    if spec.dtype is not None and spec.dtype in _SMALLER:
        return check_ranking(spec.id, spec.dtype, wanted, found)
    distance = 0.0
    for outputs, own in zip(wanted, found, strict=True):
        for name, value in outputs.items():
            distance = max(distance, between(value, own[name]))
            if not distance <= TOLERANCE:
                raise ModuleFailedError(
                    f"the export of {spec.id} is refused: its {name} is {distance:.1e} from torch's"
                )
    return distance


def _taken(network: OnnxNetwork, sample: Sample) -> dict[str, Array]:
    """Returns the inputs that the exported graph has: one that changes nothing is left out of it."""
    return {name: array for name, array in sample.items() if name in network.takes}


def _write(spec: ModuleSpec, wanted: ExportedNetwork, path: Path) -> None:
    free = {name: {axis: f"{name}_{axis}" for axis in axes} for name, axes in wanted.free.items()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of lengths that are traced as constants: the samples find them
            torch.onnx.export(
                wanted.network.module,
                wanted.network.tensors(wanted.samples[0]),
                str(path),
                input_names=list(wanted.network.inputs),
                output_names=list(wanted.network.outputs),
                dynamic_axes=free,
                opset_version=_OPSET,
                dynamo=False,  # a third of the other exporter's time, and of its memory; the same numbers
            )
    except _UNABLE as error:
        raise ModuleFailedError(f"{spec.id} cannot be exported: {type(error).__name__}: {error}"[:300]) from error


def _with_data_beside(path: Path) -> None:
    """Moves the weights of an ONNX file into `<name>.onnx.data`, which is mapped: what is not used takes no memory."""
    graph = onnx.load(path)
    beside = f"{path.name}.data"
    onnx.save_model(graph, path, save_as_external_data=True, location=beside, size_threshold=_BESIDE)


def _seconds(network: TorchNetwork | OnnxNetwork, sample: Sample) -> float:
    network(**sample)
    best = float("inf")
    for _ in range(_RUNS):
        began = time.perf_counter()
        network(**sample)
        best = min(best, time.perf_counter() - began)
    return best
