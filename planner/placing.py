"""From facts to the modules' places: builds the instance, has it solved, and drops tasks that do not fit. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from planner.facts import Facts
from schemas.definitions import ModelSpec
from schemas.errors import NoCapacityError, S2M3Error, UnknownTaskError
from schemas.instance import Instance, parse_instance

__all__ = ["Fill", "Places", "Solve", "build_instance", "place"]

#: (instance, the places now) -> module -> devices. Raises NoCapacityError.
Solve = Callable[[Instance, Mapping[str, list[str]]], Mapping[str, list[str]]]
#: (instance, the places to be, the places now) -> module -> further devices
Fill = Callable[[Instance, Mapping[str, list[str]], Mapping[str, list[str]]], Mapping[str, list[str]]]


#: node -> what modules may take there, 10^6 bytes
Room = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Places:
    """Where modules are to be, and why some tasks cannot be served."""

    modules: Mapping[str, list[str]] = field(default_factory=dict)
    #: further copies in spare memory
    spare: Mapping[str, list[str]] = field(default_factory=dict)
    errors: Mapping[str, S2M3Error] = field(default_factory=dict)
    #: nodes that are there and get nothing yet, and why
    held: Mapping[str, str] = field(default_factory=dict)


def build_instance(facts: Facts, tasks: list[str], now: float, room: Room | None = None) -> Instance:
    """Returns the instance (design.md 6.1) of the given tasks on the given nodes, or on all that are usable."""
    room = _full_room(facts) if room is None else room
    nodes = list(room)
    models = {task: _model(facts, task) for task in tasks}
    module_ids = dict.fromkeys(m for model in models.values() for m in model.module_ids)
    return parse_instance(
        {
            "devices": [
                {
                    "id": node,
                    "memory_mb": memory_mb,
                    "latency_ms": facts.profiles[node].latency_ms,
                    "mbps": facts.profiles[node].mbps,
                }
                for node, memory_mb in room.items()
            ],
            "modules": [_module(facts, module_id, list(models.values()), nodes, now) for module_id in module_ids],
            "tasks": [_task(task, models[task], facts.rates.rate(task, now)) for task in tasks],
            "max_replicas": max((facts.tasks[task].max_replicas for task in tasks), default=1),
        }
    )


def _model(facts: Facts, task: str) -> ModelSpec:
    model = facts.model_of(task)
    if task in facts.refused:
        raise facts.refused[task]
    if model is None:
        known = ", ".join(sorted(facts.catalogue.models))
        raise UnknownTaskError(f"task {task} wants the model {facts.tasks[task].model!r}; known: {known}")
    return model


def _module(facts: Facts, module_id: str, models: list[ModelSpec], nodes: list[str], now: float) -> dict[str, Any]:
    spec = facts.catalogue.modules[module_id]
    able = [node for node in nodes if facts.can_load(spec, node, now)]
    if not able:
        failed = facts.failure_of(module_id)
        why = f"; it failed with {failed.code}: {failed.detail}" if failed else f"; it needs {spec.source}"
        raise NoCapacityError(f"no node that is ready can load {module_id}{why}")
    return {
        "id": module_id,
        "memory_mb": facts.memory_of(spec),
        "input_kb": spec.input_kb,
        "output_kb": max(model.sent_kb(spec) for model in models),
        "seconds": {node: facts.seconds(spec, node) for node in able},
    }


def _task(task: str, model: ModelSpec, rate: float | None) -> dict[str, Any]:
    steps = [{"id": s, "module": step.module, "after": list(step.after)} for s, step in model.steps.items()]
    return {"id": task, "steps": steps, "rate": rate}


def place(facts: Facts, solve: Solve, now: float, fill: Fill | None = None) -> Places:
    """Returns places for all tasks if they fit, else for as many as do: those served now come first, then by name.

    Args:
        facts: Tasks and nodes.
        solve: Places modules.
        now: Monotonic seconds.
        fill: Puts further copies into spare memory.

    Returns:
        The places. Soon after a loss a task that does not fit is no error: what was lost may return.
    """
    places = _place_on_the_steady(facts, solve, now, fill)
    if now >= facts.hope_until:
        return places
    return replace(places, errors={t: e for t, e in places.errors.items() if not isinstance(e, NoCapacityError)})


def _place_on_the_steady(facts: Facts, solve: Solve, now: float, fill: Fill | None) -> Places:
    """On nodes that do not come and go, if that is enough."""
    held = facts.flapping.held(now)
    full = _full_room(facts)
    pressed = {node: max(0.0, room - facts.pressure(node)) for node, room in full.items()}
    steady = {node: room for node, room in pressed.items() if node not in held}
    if len(steady) < len(full):
        places = replace(_place_in(facts, solve, now, steady, fill), held=held)
        if not places.errors:
            return places
    places = _place_in(facts, solve, now, pressed, fill)
    if pressed != full and places.errors:  # what is there has to stay: only what is spare goes
        return _place_in(facts, solve, now, full, None)
    return places


def _full_room(facts: Facts) -> Room:
    return {node: facts.memory_for_modules(node) for node in facts.usable()}


def _place_in(facts: Facts, solve: Solve, now: float, room: Room, fill: Fill | None) -> Places:
    current = _current(facts, room)
    errors: dict[str, S2M3Error] = {}
    tasks: list[str] = []
    for task in sorted(facts.tasks):
        try:
            build_instance(facts, [task], now, room)
        except S2M3Error as error:
            errors[task] = error
        else:
            tasks.append(task)
    if not tasks:
        return Places(errors=errors)
    try:
        instance = build_instance(facts, tasks, now, room)
        places = solve(instance, current)
    except NoCapacityError:
        some = _place_some(facts, solve, now, room, tasks)
        return replace(some, errors={**errors, **some.errors})
    return Places(places, fill(instance, places, current) if fill else {}, errors)


def _place_some(facts: Facts, solve: Solve, now: float, room: Room, tasks: list[str]) -> Places:
    """Adds task by task while they fit."""
    errors: dict[str, S2M3Error] = {}
    current = _current(facts, room)
    fitting: list[str] = []
    places: Mapping[str, list[str]] = {}
    for task in sorted(tasks, key=lambda task: (not _served(facts, task), task)):
        try:
            places = solve(build_instance(facts, [*fitting, task], now, room), current)
            fitting.append(task)
        except NoCapacityError as error:
            errors[task] = error
    return Places(places, errors=errors)


def _served(facts: Facts, task: str) -> bool:
    model = facts.model_of(task)
    return model is not None and all(facts.ready_nodes(module_id) for module_id in model.module_ids)


def _current(facts: Facts, nodes: Room) -> dict[str, list[str]]:
    """Where modules are assigned now, on nodes that may keep them."""
    places: dict[str, list[str]] = {}
    for node in sorted(facts.plans):
        if node in nodes:
            for spec in facts.plans[node].modules:
                places.setdefault(spec.id, []).append(node)
    return places
