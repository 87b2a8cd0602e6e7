"""From a checkpoint's configuration and headers to the definition that serves it. Pure: no weights, no torch."""

import re
from collections.abc import Mapping

from schemas.architectures import Architecture, Part, PartStep, architecture_of
from schemas.checkpoint import Checkpoint
from schemas.definitions import Definition, ModelSpec, ModuleSpec, StepSpec
from schemas.errors import BadDefinitionError
from schemas.sizes import Size, sizes_of
from schemas.values import Kind

__all__ = ["definition_of"]

#: Weights are computed with as float32.
_BYTES = 4
_LEAST_MB = 0.1
#: What a request's input usually is on the wire.
_INPUT_KB: dict[Kind, float] = {
    "image": 120.0,
    "images": 120.0,
    "audio": 64.0,
    "text": 0.2,
    "texts": 0.2,
    "tensor": 1.0,
    "number": 0.1,
    "data": 1.0,
}


def definition_of(checkpoint: Checkpoint, source: str, revision: str = "") -> Definition:
    """Returns the model that a checkpoint is, and its modules.

    Args:
        checkpoint: Configuration and the headers of all its files.
        source: What its modules are to name as their source.
        revision: Of a hub id.

    Raises:
        BadDefinitionError: Its architecture is not known, it is only a head, or a part has no tensors.
    """
    family = architecture_of(checkpoint.config)
    if not family.steps:
        raise BadDefinitionError(f"{checkpoint.folder.name} is {family.description[0].lower()}{family.description[1:]}")
    sizes = _sizes(family, checkpoint)
    modules = {name: _module(checkpoint, name, part, source, revision) for name, part in family.parts.items()}
    for step in family.steps.values():
        modules[step.part] = _with_sizes(modules[step.part], family, step, sizes)
    return Definition(model=_model(checkpoint, family, modules), modules=list(modules.values()))


def _sizes(family: Architecture, checkpoint: Checkpoint) -> Mapping[str, Size | None]:
    """Sizes are estimates until a part was measured: a configuration that tells none is served all the same."""
    try:
        return sizes_of(family, checkpoint.config)
    except BadDefinitionError:
        return {}


def _module(checkpoint: Checkpoint, name: str, part: Part, source: str, revision: str) -> ModuleSpec:
    """One part of a checkpoint as a module. Its id holds a piece of its identity: no two modules share one."""
    names = part.names(checkpoint.tensors)
    if not names:
        raise BadDefinitionError(f"{checkpoint.folder.name} holds no tensor {' or '.join(part.prefixes)}… for {name}")
    numbers = sum(checkpoint.tensors[on_disk].count for on_disk in names)
    spec = ModuleSpec.model_validate(
        {
            "id": name,
            "role": part.role,
            "class": part.class_,
            "source": source,
            "revision": revision,
            "prefix": name,
            "inputs": part.inputs,
            "outputs": {port: output.kind for port, output in part.outputs.items()},
            "memory_mb": max(_LEAST_MB, round(numbers * _BYTES / 1e6, 2)),
            "gflops": round(2 * numbers / 1e9, 4),
        }
    )
    return spec.model_copy(update={"id": f"{_id(checkpoint.folder.name)[:40]}-{name}-{spec.identity[:6]}"})


def _with_sizes(spec: ModuleSpec, family: Architecture, step: PartStep, sizes: Mapping[str, Size | None]) -> ModuleSpec:
    """The operations that the configuration tells, and what a step of the model takes and gives on the wire."""
    size = sizes.get(step.part)
    update = {} if size is None else {"gflops": round(size.gflops, 4)}
    update["input_kb"] = sum(_port_kb(ref, family, sizes) for ref in step.inputs.values())
    own = {name for name, other in family.steps.items() if other is step}
    taken = {ref for other in family.steps.values() for ref in other.inputs.values() if ref.partition(".")[0] in own}
    update["output_kb"] = sum(_port_kb(ref, family, sizes) for ref in taken) or 1.0
    return spec.model_copy(update={name: round(value, 4) for name, value in update.items()})


def _port_kb(ref: str, family: Architecture, sizes: Mapping[str, Size | None]) -> float:
    step_id, _, port = ref.partition(".")
    if step_id == "input":
        return _INPUT_KB[family.inputs[port]]
    part_id = family.steps[step_id].part
    output, size = family.parts[part_id].outputs[port], sizes.get(part_id)
    return (size.output_bytes(output.field, output.skip) if size else 0) / 1000 or 1.0


def _model(checkpoint: Checkpoint, family: Architecture, modules: Mapping[str, ModuleSpec]) -> ModelSpec:
    return ModelSpec(
        id=_id(checkpoint.folder.name),
        description=family.description,
        inputs=family.inputs,
        steps={name: StepSpec(module=modules[step.part].id, inputs=step.inputs) for name, step in family.steps.items()},
        answer=family.answer,
    )


def _id(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "checkpoint"
