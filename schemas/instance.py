"""The instance file of `s2m3 plan`: devices, modules, tasks. Errors name the file and the key."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s2m3.schemas.errors import BadDefinitionError

__all__ = [
    "PREFERENCE_S",
    "Device",
    "Instance",
    "PlacedModel",
    "PlacedModule",
    "PlacedStep",
    "PlacedTask",
    "load_instance",
    "parse_instance",
    "read_document",
    "unknown_key",
]

_Name = Annotated[str, Field(min_length=1, max_length=200)]
#: Strict: a string or a boolean in place of a number is an error, and is not converted.
#: Bounds keep sums and products finite: a petabyte, thirty years, a bit a second.
_LARGEST, _SLOWEST_MBPS = 1e9, 1e-6
_Size = Annotated[float, Field(ge=0, le=_LARGEST, strict=True)]
#: What a preference is worth unless the instance says otherwise, seconds per step.
PREFERENCE_S = 1.0
#: Keys that begin so are the user's own: notes, units, sources of numbers. They are passed over in every object.
_OWN = "x-"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _without_own_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if not str(key).startswith(_OWN)}


class Device(_Frozen):
    """A device: memory for modules (10^6 bytes), and its link (one-way latency in ms, 10^6 bits a second).

    `energy_w` is what the whole device draws while it computes, `idle_w` what it draws otherwise, both in watts.
    `prefer` is its weight: each point less than the largest counts `preference_s` for every step there.
    """

    id: _Name
    memory_mb: _Size
    latency_ms: _Size = 0.0
    mbps: Annotated[float, Field(ge=_SLOWEST_MBPS, le=_LARGEST, strict=True)] = 1000.0
    energy_w: _Size | None = None
    idle_w: _Size | None = None
    prefer: _Size = 1.0

    @model_validator(mode="after")
    def _draws_most_at_work(self) -> Self:
        idle_w = self.idle_w or 0.0
        if self.energy_w is not None and idle_w > self.energy_w:
            raise ValueError(f"idle_w {idle_w:g} is more than energy_w {self.energy_w:g}")
        return self


class PlacedModule(_Frozen):
    """A module: memory (10^6 bytes), input and output per item (kB), and seconds per item on each capable device."""

    id: _Name
    memory_mb: _Size
    input_kb: _Size = 0.0
    output_kb: _Size = 0.0
    seconds: dict[_Name, _Size]


class PlacedStep(_Frozen):
    """One step of a task: the module that runs it, and its predecessors."""

    id: _Name
    module: _Name
    after: tuple[_Name, ...] = ()


class PlacedModel(_Frozen):
    """A further model of a task, which answers while those before it cannot: a DAG of steps."""

    id: _Name
    steps: Annotated[tuple[PlacedStep, ...], Field(min_length=1)]


class PlacedTask(_Frozen):
    """A task: a DAG of steps with requests from device `source` (None: from elsewhere behind the broker)."""

    id: _Name
    source: _Name | None = None
    weight: _Size = 1.0
    #: requests a second; used by the queueing model only
    rate: _Size | None = None
    #: devices in order of preference: each place further down counts `preference_s` for every step there
    prefer: tuple[_Name, ...] = ()
    steps: Annotated[tuple[PlacedStep, ...], Field(min_length=1)]
    #: further models, the best first
    stand_ins: tuple[PlacedModel, ...] = ()

    @property
    def ranks(self) -> tuple[tuple[PlacedStep, ...], ...]:
        """The steps of each of its models, the best first."""
        return (self.steps, *(model.steps for model in self.stand_ins))


class Instance(_Frozen):
    """The input of a placement: devices, modules, tasks, and the most copies of a module."""

    devices: Annotated[tuple[Device, ...], Field(min_length=1)]
    modules: tuple[PlacedModule, ...]
    tasks: tuple[PlacedTask, ...]
    max_replicas: Annotated[int, Field(ge=1, strict=True)] = 1
    #: what a place in a task's order of preference, or a point of a device's weight, is worth per step, seconds
    preference_s: _Size = PREFERENCE_S


def parse_instance(document: Mapping[str, Any], where: str = "instance") -> Instance:
    """Returns a validated instance.

    Args:
        document: The instance as JSON values; its fields are those of `Instance`.
        where: The document's name in errors, e.g. the file.

    Raises:
        BadDefinitionError: The document is invalid; the text names the key.
    """
    try:
        instance = Instance.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = _unknown_at(first["loc"]) if first["type"] == "extra_forbidden" else first["msg"]
        raise BadDefinitionError(f"{where}: {'.'.join(map(str, first['loc']))}: {said}") from error
    devices = _unique(where, "devices", instance.devices)
    modules = _unique(where, "modules", instance.modules)
    _unique(where, "tasks", instance.tasks)
    needed = {step.module for task in instance.tasks if not task.stand_ins for step in task.steps}
    for module in instance.modules:
        if not module.seconds and (module.id in needed or not any(task.stand_ins for task in instance.tasks)):
            raise BadDefinitionError(f"{where}: modules.{module.id}.seconds: no device can run it")
        if unknown := module.seconds.keys() - devices:
            raise BadDefinitionError(f"{where}: modules.{module.id}.seconds: unknown device {min(unknown)!r}")
    for task in instance.tasks:
        _check_task(f"{where}: tasks.{task.id}", task, devices, modules)
    return instance


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Returns what is said of a key that is not read: the nearest one that is, and how a key of one's own begins."""
    names = list(known)
    near = get_close_matches(key, names, n=1)
    meant = f"did you mean {near[0]}? " if near else f"known are {', '.join(names)}; "
    return f"unknown key; {meant}keys of your own begin with {_OWN}"


def _unknown_at(location: tuple[int | str, ...]) -> str:
    """Returns what is said of a key that is not read at a place of an instance."""
    classes: dict[int | str, type[BaseModel]] = {
        "devices": Device,
        "modules": PlacedModule,
        "tasks": PlacedTask,
        "steps": PlacedStep,
        "stand_ins": PlacedModel,
    }
    inside = [classes[part] for part in location[:-1] if part in classes]
    return unknown_key(str(location[-1]), (inside[-1] if inside else Instance).model_fields)


def _check_task(where: str, task: PlacedTask, devices: set[str], modules: set[str]) -> None:
    if task.source is not None and task.source not in devices:
        raise BadDefinitionError(f"{where}.source: unknown device {task.source!r}")
    if unknown := set(task.prefer) - devices:
        raise BadDefinitionError(f"{where}.prefer: unknown device {min(unknown)!r}")
    if len(set(task.prefer)) < len(task.prefer):
        raise BadDefinitionError(f"{where}.prefer: a device is there twice")
    _check_steps(where, task.steps, modules)
    _unique(where, "stand_ins", task.stand_ins)
    for model in task.stand_ins:
        _check_steps(f"{where}.stand_ins.{model.id}", model.steps, modules)


def _check_steps(where: str, dag: tuple[PlacedStep, ...], modules: set[str]) -> None:
    steps = _unique(where, "steps", dag)
    for step in dag:
        if step.module not in modules:
            raise BadDefinitionError(f"{where}.steps.{step.id}.module: unknown module {step.module!r}")
        if len(set(step.after)) < len(step.after):
            raise BadDefinitionError(f"{where}.steps.{step.id}.after: a step is there twice")
        if unknown := set(step.after) - steps:
            raise BadDefinitionError(f"{where}.steps.{step.id}.after: unknown step {min(unknown)!r}")
    try:
        TopologicalSorter({step.id: step.after for step in dag}).prepare()
    except CycleError as error:
        raise BadDefinitionError(f"{where}.steps: a cycle: {' -> '.join(error.args[1])}") from error
    followed = {before for step in dag for before in step.after}
    if len(heads := [step.id for step in dag if step.id not in followed]) != 1:
        raise BadDefinitionError(f"{where}.steps: two heads: {', '.join(heads)}; one step must be the last")


def _unique(where: str, name: str, items: tuple[Any, ...]) -> set[str]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise BadDefinitionError(f"{where}: {name}: {item.id!r} is there twice")
        seen.add(item.id)
    return seen


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds a JSON object, but raises ValueError for a duplicate key, of which `json` would keep the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {duplicate!r} is there twice in one object")
    return members


def read_document(path: Path) -> dict[str, Any]:
    """Returns an instance file's JSON object, not yet validated.

    Raises:
        BadDefinitionError: The file cannot be read or is no JSON object; the text names the file, and the line.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
    except (OSError, UnicodeDecodeError) as error:
        raise BadDefinitionError(f"{path.name}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadDefinitionError(f"{path.name}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadDefinitionError(f"{path.name}: not a JSON object")
    return document


def load_instance(path: Path) -> Instance:
    """Reads an instance file.

    Raises:
        BadDefinitionError: The file cannot be read, is not JSON, or is invalid; the text names file and line or key.
    """
    return parse_instance(read_document(path), path.name)
