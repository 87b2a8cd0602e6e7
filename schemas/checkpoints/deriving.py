"""Derives the model definition of a checkpoint from its configuration and headers. Pure: no weights, no torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from s2m3.schemas.checkpoints.architectures import Architecture, Part, architecture_of
from s2m3.schemas.checkpoints.headers import Checkpoint, TensorInfo
from s2m3.schemas.checkpoints.leftovers import is_leftover
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.sizes import Size, cache_mb, passed, sizes_of
from s2m3.schemas.specs import Definition, ModelSpec, ModuleSpec, StepSpec
from s2m3.schemas.wire.values import Kind

__all__ = ["definition_of", "linear_by_shape", "module_of", "tensors_of", "wired"]

#: Bytes of a float32 weight.
_BYTES = 4
_LEAST_MB = 0.1
_MATRIX = 2
#: Matches names of embedding matrices.
_TABLE = re.compile(r"embed|position|table|\bwte\b|\bwpe\b")
#: Assumed KV cache of one text for a network without a formula, bytes.
_TEXT_BYTES = 64_000_000
#: Assumed kB of values without a known tensor size: a camera's JPEG, some seconds of sound, a sentence, a ranking.
_KB: dict[Kind, float] = {
    "image": 120.0,
    "images": 120.0,
    "audio": 64.0,
    "text": 0.2,
    "texts": 0.2,
    "tensor": 1.0,
    "number": 0.1,
    "data": 0.4,
    "boxes": 1.0,
    "chat": 0.4,
}


def definition_of(
    checkpoint: Checkpoint,
    source: str,
    revision: str = "",
    dtype: Dtype | None = None,
    *,
    own: Sequence[Architecture] = (),
    use: str | None = None,
) -> Definition:
    """Returns the model definition of a checkpoint, with its modules.

    Args:
        checkpoint: The configuration and the headers of all files.
        source: The source that the modules name.
        revision: The revision of a hub id.
        dtype: The dtype of the networks' weights; None leaves the choice to each agent.
        own: Architectures that count besides the shipped ones.
        use: What the checkpoint is used for; None: what its folder says.

    Raises:
        BadInputError: The checkpoint cannot be used for that.
        BadDefinitionError: The architecture is unknown or only a head, or a part has no tensors.
    """
    family, name = architecture_of(checkpoint.config, own, use), checkpoint.folder.name
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
        # an id contains part of the module's identity, so that different modules have different ids
        modules[part_id] = spec.model_copy(update={"id": f"{_id(name)[:40]}-{part_id}-{spec.identity[:6]}"})
    ids = {part_id: spec.id for part_id, spec in modules.items()}
    return Definition(model=wired(family, _id(name), ids), modules=list(modules.values()))


def tensors_of(checkpoint: Checkpoint, part_id: str, part: Part) -> Iterable[str]:
    """Returns the names on disk of a part's weights.

    Raises:
        BadDefinitionError: The checkpoint has no tensor of the part.
    """
    names = part.names(checkpoint.tensors)
    if not names:
        wanted = " or ".join(part.prefixes)
        raise BadDefinitionError(f"{checkpoint.folder.name} holds no tensor {wanted}… for {part_id}")
    return [name for name in names if not is_leftover(name, checkpoint.tensors[name])]


def linear_by_shape(tensors: Mapping[str, TensorInfo]) -> int:
    """Returns the parameters in linear layers, estimated by shape and name; for networks without a formula."""
    return sum(t.count for name, t in tensors.items() if len(t.shape) == _MATRIX and not _TABLE.search(name))


def _sizes(family: Architecture, checkpoint: Checkpoint) -> Mapping[str, Size | None]:
    """Returns sizes of parts, empty if the configuration is incomplete: sizes are estimates, so that is no error."""
    try:
        return sizes_of(family, checkpoint.config, checkpoint.generation)
    except BadDefinitionError:
        return {}


def _writes(part: Part) -> bool:
    """Returns whether the part writes a text, for which keys and values are kept."""
    generated = part.outputs.get(part.generates or "")
    return generated is not None and generated.kind == "text"


def module_of(
    part_id: str, part: Part, *, numbers: int, linear: int, size: Size | None, source: str, revision: str = ""
) -> ModuleSpec:
    """Returns the module of a checkpoint's part, with the part's name as id.

    Args:
        part_id: The part's name.
        part: The part in the architecture.
        numbers: Numbers in the part's tensors.
        linear: Of these, the numbers in matrices of linear layers.
        size: The size from the configuration; None if there is no formula.
        source: The source of the weights.
        revision: The revision of a hub id.
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
            "cache_mb": cache_mb(size.text_bytes if size else _TEXT_BYTES, weights_mb) if _writes(part) else 0.0,
            "gflops": round(size.gflops if size else 2 * numbers * part.repeats / 1e9, 4),
            "input_kb": sum(_KB[kind] for kind in part.inputs.values()),
            "output_kb": next(iter(sends.values())),
            "sends_kb": sends,
        }
    )


def _kb(kind: Kind, shape: tuple[int, ...] | None) -> float:
    return _KB[kind] if shape is None else prod(shape) * _BYTES / 1000


def wired(family: Architecture, model_id: str, ids: Mapping[str, str]) -> ModelSpec:
    """Returns the model that an architecture's steps define.

    Args:
        family: The architecture.
        model_id: The model's id.
        ids: Part -> id of its module.
    """
    steps = {name: StepSpec(module=ids[step.part], inputs=step.inputs) for name, step in family.steps.items()}
    return ModelSpec(
        id=model_id, description=family.description, inputs=family.inputs, steps=steps, answer=family.answer
    )


def _id(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "checkpoint"
