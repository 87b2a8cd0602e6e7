"""An instance from models and devices that nobody has measured: sizes from the definitions, speeds as assumed. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s2m3.schemas.definitions import Catalogue, ModelSpec, ModuleSpec
from s2m3.schemas.dtypes import Dtype, read_dtype
from s2m3.schemas.errors import BadDefinitionError, BadInputError
from s2m3.schemas.instance import Instance, parse_instance
from s2m3.schemas.sizes import ANSWER_TOKENS

__all__ = ["AssumedDevice", "assumed_devices", "estimated_instance", "seconds_of"]

_Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AssumedDevice(BaseModel):
    """A device as assumed for one item at a time.

    gflops is what it sustains on an encoder, gb_s the memory bandwidth that it reads weights with, 10^9 bytes a second.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(min_length=1)]
    memory_mb: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    gflops: _Speed
    gb_s: _Speed
    latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    mbps: _Speed = 1000.0


def assumed_devices(document: Mapping[str, object], where: str) -> list[AssumedDevice]:
    """Returns the devices of a `{"devices": […]}` document.

    Raises:
        BadDefinitionError: It is something else; the text names the file and the key.
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
            raise BadDefinitionError(f"{where}: {key}: {first['msg']}") from error
    return found


def seconds_of(*, gflops: float, memory_mb: float, writes: bool, device: AssumedDevice) -> float:
    """Returns seconds per item: the operations, and for what writes text its weights read once for each token."""
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
    """Returns the instance (docs/placement.md) of one task for each model.

    Args:
        catalogue: The definitions known.
        models: Ids of models.
        devices: Where they may be placed.
        dtype: Of the weights in memory; by name.
        source: The device that asks; None: somewhere behind the broker.

    Raises:
        BadInputError: A model or the dtype is not known.
        BadDefinitionError: The source is not one of the devices, or a device is there twice.
    """
    held_in = read_dtype(dtype)
    if unknown := [model for model in models if model not in catalogue.models]:
        raise BadInputError(f"no model {unknown[0]!r}; there are: {', '.join(catalogue.models)}")
    specs = [catalogue.models[model] for model in dict.fromkeys(models)]
    used = {module_id: catalogue.modules[module_id] for spec in specs for module_id in spec.module_ids}
    return parse_instance(
        {
            "devices": [device.model_dump(include={"id", "memory_mb", "latency_ms", "mbps"}) for device in devices],
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
