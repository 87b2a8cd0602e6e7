"""From facts and places to documents: who is to hold what now, which routes there are, who is front. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.facts import Facts
from planner.placing import Places
from schemas.definitions import ModuleSpec
from schemas.messages import ErrorBody, Replica, RouteDoc, RouteStep

__all__ = ["Assignment", "Decision", "decide"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one node's plan is to say."""

    modules: tuple[ModuleSpec, ...] = ()
    fronts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the bus is to say. Epoch and revision are the service's to set."""

    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    routes: Mapping[str, RouteDoc] = field(default_factory=dict)


def decide(facts: Facts, places: Places) -> Decision:
    """Returns the documents that follow from the facts and the places.

    Make before break: a ready copy that is not to stay is kept while its module has no ready copy where it is to be;
    routes name ready copies only, those that stay first of all. A node that drains keeps what no other node has a place
    for. A node that is held back and keeps nothing is told nothing, however often it comes.
    """
    wanted = {module: [*nodes, *places.spare.get(module, ())] for module, nodes in places.modules.items()}
    wanted.update({module: [] for module in _placeless(facts, places)})
    holders = {module: _holders(facts, module, nodes) for module, nodes in wanted.items()}
    fronts = _fronts(facts, places)
    told = facts.nodes.present - (places.held.keys() & facts.nodes.ready)
    nodes = sorted(told | {node for nodes in holders.values() for node in nodes})
    assignments = {
        node: Assignment(
            modules=_fitting(facts, node, [m for m in sorted(holders) if node in holders[m]], wanted, places),
            fronts=tuple(task for task in sorted(fronts) if fronts[task] == node),
        )
        for node in nodes
    }
    routes = {task: _route(facts, task, places, holders) for task in sorted(facts.tasks)}
    return Decision(assignments, routes)


def _placeless(facts: Facts, places: Places) -> set[str]:
    """Modules that have no place now, and that only nodes that drain still serve."""
    models = [model for task in facts.tasks if (model := facts.model_of(task)) is not None]
    modules = {module for model in models for module in model.module_ids} - places.modules.keys()
    return {module for module in modules if (ready := facts.ready_nodes(module)) and not facts.nodes.ready & {*ready}}


def _holders(facts: Facts, module: str, wanted: list[str]) -> list[str]:
    """The nodes that are to hold a module now: where it is wanted, and old ready copies until a wanted one is ready."""
    ready = facts.ready_nodes(module)
    if any(node in ready for node in wanted):
        return list(wanted)
    return [*wanted, *(node for node in ready if node not in wanted)]


def _fitting(
    facts: Facts, node: str, modules: list[str], wanted: Mapping[str, list[str]], places: Places
) -> tuple[ModuleSpec, ...]:
    """All of them if memory allows; while an old copy has to stay, new ones that do not fit beside it wait.

    In the order in which they are to be loaded: further copies last.
    """
    specs = [facts.catalogue.modules[module] for module in modules]
    specs.sort(key=lambda spec: (node in places.spare.get(spec.id, ()), spec.id))
    staying = [spec for spec in specs if node not in wanted[spec.id]]
    if not staying or node not in facts.profiles:
        return tuple(specs)
    room = facts.memory_for_modules(node)
    taken: set[str] = set()
    held_first = sorted(specs, key=lambda spec: (facts.holds(node, spec.id) is None, facts.memory_of(spec), spec.id))
    for spec in held_first:
        room -= facts.memory_of(spec)
        if room >= 0 or facts.holds(node, spec.id) is not None:
            taken.add(spec.id)
    return tuple(spec for spec in specs if spec.id in taken)


def _fronts(facts: Facts, places: Places) -> dict[str, str]:
    """One front per task: who is it stays; else the ready node with the fewest."""
    usable = [node for node in facts.usable() if node not in places.held and facts.profiles[node].front]
    usable = usable or [node for node in sorted(facts.nodes.present) if node in facts.plans]  # they drain, and serve
    fronts = {
        task: node for node in usable if node in facts.plans for task in facts.plans[node].fronts if task in facts.tasks
    }
    count = {node: sum(1 for front in fronts.values() if front == node) for node in usable}
    for task in sorted(facts.tasks):
        if task not in fronts and task in facts.sessions and usable:
            fronts[task] = min(usable, key=lambda node: (count[node], node))
            count[fronts[task]] += 1
    return fronts


def _route(facts: Facts, task: str, places: Places, holders: Mapping[str, list[str]]) -> RouteDoc:
    spec, model = facts.tasks[task], facts.model_of(task)
    error = places.errors.get(task)
    why_not = ErrorBody(**error.as_dict()) if error is not None else None
    if model is None:
        return RouteDoc(epoch=0, revision=0, model=spec.model, deadline_s=spec.deadline_s, error=why_not)
    steps = {}
    for step_id, step in model.steps.items():
        module = facts.catalogue.modules[step.module]
        steps[step_id] = RouteStep(
            module=module.id,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(step_id)),
            generates=module.generates,
            input_kb=module.input_kb,
            output_kb=module.output_kb,
            replicas=[_replica(facts, module, node) for node in _serving(facts, module, holders)],
        )
    if all(step.replicas for step in steps.values()):  # it has no place, but is served where it was
        why_not = None
    return RouteDoc(
        epoch=0,
        revision=0,
        model=model.id,
        inputs=model.inputs,
        defaults=spec.inputs,
        options=spec.options,
        answer=model.answer,
        deadline_s=spec.deadline_s,
        steps=steps,
        error=why_not,
    )


def _serving(facts: Facts, module: ModuleSpec, holders: Mapping[str, list[str]]) -> list[str]:
    return [node for node in facts.ready_nodes(module.id) if node in holders.get(module.id, ())]


def _replica(facts: Facts, module: ModuleSpec, node: str) -> Replica:
    profile = facts.profiles[node]
    return Replica(
        node=node,
        ms=_rounded(facts.seconds(module, node) * 1000),
        latency_ms=_rounded(profile.latency_ms),
        mbps=_rounded(profile.mbps),
    )


def _rounded(value: float) -> float:
    """Two digits: a figure that moves by a few percent must not make a new document."""
    return float(f"{value:.2g}")
