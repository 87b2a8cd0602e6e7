"""Builds an instance without measurements: sizes come from model definitions, speeds are assumed. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, ValidationError

from s2m3.schemas.definitions import Catalogue, ModelSpec, ModuleSpec
from s2m3.schemas.dtypes import Dtype, read_dtype
from s2m3.schemas.errors import BadDefinitionError, BadInputError
from s2m3.schemas.instance import Device, Instance, parse_instance, unknown_key
from s2m3.schemas.sizes import ANSWER_TOKENS

__all__ = ["AssumedDevice", "assumed_devices", "estimated_instance", "seconds_of"]

_Speed = Annotated[float, Field(gt=0, strict=True)]


class AssumedDevice(Device):
    """An assumed device that runs one item at a time.

    `gflops` is the throughput that an encoder sustains, `gb_s` the memory bandwidth for weights, 10^9 bytes a second.
    """

    gflops: _Speed
    gb_s: _Speed


def assumed_devices(document: Mapping[str, object], where: str) -> list[AssumedDevice]:
    """Returns the devices of a `{"devices": […]}` document; `where` names its file in errors.

    Raises:
        BadDefinitionError: The document has another form; the text names the file and the key.
    """
    devices = document.get("devices")
    if not isinstance(devices, list) or not devices:
        raise BadDefinitionError(f"{where}: devices: not a list of devices")
    found = []
    for number, device in enumerate(devices):
        try:
            found.append(AssumedDevice.model_validate(device))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(["devices", str(number), *map(str, first["loc"])])
            is_unknown = first["type"] == "extra_forbidden"
            said = unknown_key(str(first["loc"][-1]), AssumedDevice.model_fields) if is_unknown else first["msg"]
            raise BadDefinitionError(f"{where}: {key}: {said}") from error
    return found


def seconds_of(*, gflops: float, memory_mb: float, writes: bool, device: AssumedDevice) -> float:
    """Returns seconds per item: the operations and, for a text generator, one read of all weights per output token."""
    reading = ANSWER_TOKENS * memory_mb / 1000 / device.gb_s if writes else 0.0
    return gflops / device.gflops + reading


def estimated_instance(
    catalogue: Catalogue,
    models: Sequence[str],
    devices: Sequence[AssumedDevice],
    *,
    dtype: str = "float32",
    source: str | None = None,
) -> Instance:
    """Returns an instance (schemas/instance.py) with one task per model.

    Args:
        catalogue: The known definitions.
        models: Ids of models.
        devices: The devices to place modules on.
        dtype: Name of the dtype of weights in memory.
        source: Id of the device that sends requests; None for a requester elsewhere behind the broker.

    Raises:
        BadInputError: A model or the dtype is unknown.
        BadDefinitionError: The source is not one of the devices, or two devices have the same id.
    """
    held_in = read_dtype(dtype)
    if unknown := [model for model in models if model not in catalogue.models]:
        raise BadInputError(f"no model {unknown[0]!r}; there are: {', '.join(catalogue.models)}")
    specs = [catalogue.models[model] for model in dict.fromkeys(models)]
    used = {module_id: catalogue.modules[module_id] for spec in specs for module_id in spec.module_ids}
    return parse_instance(
        {
            "devices": [device.model_dump(include=set(Device.model_fields)) for device in devices],
            "modules": [_module(module, specs, devices, held_in) for module in used.values()],
            "tasks": [_task(spec, source) for spec in specs],
        },
        "models on devices",
    )


def _module(
    module: ModuleSpec, models: Sequence[ModelSpec], devices: Sequence[AssumedDevice], dtype: Dtype
) -> dict[str, object]:
    weights_mb, writes = module.weights_mb(dtype), module.role == "decoder"
    return {
        "id": module.id,
        "memory_mb": weights_mb + module.cache_mb,
        "input_kb": module.input_kb,
        "output_kb": max(model.sent_kb(module) for model in models),
        "seconds": {
            device.id: seconds_of(gflops=module.gflops, memory_mb=weights_mb, writes=writes, device=device)
            for device in devices
        },
    }


def _task(model: ModelSpec, source: str | None) -> dict[str, object]:
    steps = [{"id": s, "module": step.module, "after": list(step.after)} for s, step in model.steps.items()]
    return {"id": model.id, "source": source, "steps": steps}
