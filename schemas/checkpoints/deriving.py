"""From a checkpoint's configuration and headers to the definition that serves it. Pure: no weights, no torch."""

import re
from collections.abc import Iterable, Mapping
from math import prod

from s2m3.schemas.checkpoints.architectures import Architecture, Part, architecture_of
from s2m3.schemas.checkpoints.headers import Checkpoint, TensorInfo
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.sizes import Size, cache_mb, passed, sizes_of
from s2m3.schemas.specs import Definition, ModelSpec, ModuleSpec, StepSpec
from s2m3.schemas.wire.values import Kind

__all__ = ["definition_of", "linear_by_shape", "module_of", "tensors_of", "wired"]

#: Weights are computed with as float32.
_BYTES = 4
_LEAST_MB = 0.1
_MATRIX = 2
#: In names of matrices that are looked up.
_TABLE = re.compile(r"embed|position|table|\bwte\b|\bwpe\b")
#: Keys and values of one text of a network without a formula.
_TEXT_BYTES = 64_000_000
#: kB of what is no tensor of known size: a camera's JPEG, some seconds of sound, a sentence, a ranking.
_KB: dict[Kind, float] = {
    "image": 120.0,
    "images": 120.0,
    "audio": 64.0,
    "text": 0.2,
    "texts": 0.2,
    "tensor": 1.0,
    "number": 0.1,
    "data": 0.4,
}


def definition_of(checkpoint: Checkpoint, source: str, revision: str = "", dtype: Dtype | None = None) -> Definition:
    """Returns the model that a checkpoint is, and its modules.

    Args:
        checkpoint: Configuration and the headers of all its files.
        source: What its modules are to name as their source.
        revision: Of a hub id.
        dtype: Of the weights of its networks; None: as each agent chooses.

    Raises:
        BadDefinitionError: Its architecture is not known, it is only a head, or a part has no tensors.
    """
    family, name = architecture_of(checkpoint.config), checkpoint.folder.name
    if not family.steps:
        raise BadDefinitionError(f"{name} is {family.description[0].lower()}{family.description[1:]}")
    sizes = _sizes(family, checkpoint)
    modules = {}
    for part_id, part in family.parts.items():
        tensors = {on_disk: checkpoint.tensors[on_disk] for on_disk in tensors_of(checkpoint, part_id, part)}
        numbers, size = sum(tensor.count for tensor in tensors.values()), sizes.get(part_id)
        linear = size.count.linear if size else linear_by_shape(tensors)
        spec = module_of(part_id, part, numbers=numbers, linear=linear, size=size, source=source, revision=revision)
        if part.network:
            spec = spec.model_copy(update={"dtype": dtype})
        # Its id holds a piece of its identity: no two modules share one.
        modules[part_id] = spec.model_copy(update={"id": f"{_id(name)[:40]}-{part_id}-{spec.identity[:6]}"})
    ids = {part_id: spec.id for part_id, spec in modules.items()}
    return Definition(model=wired(family, _id(name), ids), modules=list(modules.values()))


def tensors_of(checkpoint: Checkpoint, part_id: str, part: Part) -> Iterable[str]:
    """Returns the names on disk of a part's tensors.

    Raises:
        BadDefinitionError: It has none.
    """
    names = part.names(checkpoint.tensors)
    if not names:
        wanted = " or ".join(part.prefixes)
        raise BadDefinitionError(f"{checkpoint.folder.name} holds no tensor {wanted}… for {part_id}")
    return names


def linear_by_shape(tensors: Mapping[str, TensorInfo]) -> int:
    """Returns how many numbers are in matrices of linear layers, for a network without a formula: judged by shape."""
    return sum(t.count for name, t in tensors.items() if len(t.shape) == _MATRIX and not _TABLE.search(name))


def _sizes(family: Architecture, checkpoint: Checkpoint) -> Mapping[str, Size | None]:
    """Sizes are estimates until a part was measured: a configuration that tells none is served all the same."""
    try:
        return sizes_of(family, checkpoint.config)
    except BadDefinitionError:
        return {}


def module_of(
    part_id: str, part: Part, *, numbers: int, linear: int, size: Size | None, source: str, revision: str = ""
) -> ModuleSpec:
    """Returns a part of a checkpoint as a module, by the part's name.

    Args:
        part_id: The part's name.
        part: What the architecture says of it.
        numbers: In its tensors.
        linear: Of these, in matrices of linear layers.
        size: By the configuration; None where no formula is known.
        source: Where its weights come from.
        revision: Of a hub id.
    """
    shapes = passed(part, size)
    sends = {name: _kb(output.kind, shapes.get(name)) for name, output in part.outputs.items()}
    weights_mb = max(_LEAST_MB, round(numbers * _BYTES / 1e6, 2))
    return ModuleSpec.model_validate(
        {
            "id": part_id,
            "role": part.role,
            "class": part.class_,
            "source": source,
            "revision": revision,
            "prefix": part_id,
            "inputs": part.inputs,
            "outputs": {name: output.kind for name, output in part.outputs.items()},
            "generates": part.generates,
            "memory_mb": weights_mb,
            "linear_mb": min(weights_mb, round(linear * _BYTES / 1e6, 2)),
            "cache_mb": cache_mb(size.text_bytes if size else _TEXT_BYTES, weights_mb) if part.generates else 0.0,
            "gflops": round(size.gflops if size else 2 * numbers / 1e9, 4),
            "input_kb": sum(_KB[kind] for kind in part.inputs.values()),
            "output_kb": next(iter(sends.values())),
            "sends_kb": sends,
        }
    )


def _kb(kind: Kind, shape: tuple[int, ...] | None) -> float:
    return _KB[kind] if shape is None else prod(shape) * _BYTES / 1000


def wired(family: Architecture, model_id: str, ids: Mapping[str, str]) -> ModelSpec:
    """Returns the model that an architecture wires of its parts.

    Args:
        family: The architecture.
        model_id: Of the model.
        ids: part -> module.
    """
    steps = {name: StepSpec(module=ids[step.part], inputs=step.inputs) for name, step in family.steps.items()}
    return ModelSpec(
        id=model_id, description=family.description, inputs=family.inputs, steps=steps, answer=family.answer
    )


def _id(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "checkpoint"
