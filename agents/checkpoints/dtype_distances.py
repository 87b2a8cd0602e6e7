"""How far each part of a model is from float32 when its weights are in another dtype. It loads them, one at a time."""

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from s2m3.agents import registry
from s2m3.agents.checkpoints.distance import Distance, distance
from s2m3.agents.checkpoints.storage.folders import NO_CHECKPOINTS, CheckpointSources
from s2m3.agents.memory import give_back
from s2m3.agents.serving.module import Module
from s2m3.schemas.dtypes import SHARES, Dtype
from s2m3.schemas.specs import Definition, ModelSpec, ModuleSpec
from s2m3.schemas.wire.values import Value

__all__ = ["Distances", "distances"]

#: part -> dtype -> output -> distance
Distances = dict[str, dict[Dtype, dict[str, Distance]]]


def distances(
    definition: Definition, items: Sequence[Mapping[str, Value]], sources: CheckpointSources = NO_CHECKPOINTS
) -> Distances:
    """Runs a model in float32 step by step, and each step that has a network again in every other dtype.

    A part gets the inputs that the float32 parts before it gave: each is measured by itself.

    Args:
        definition: The model and its modules, whose source is a folder on this device.
        items: Requests' inputs. At least one.
        sources: Where its modules are, and what architectures they may be of.

    Returns:
        The distances of the outputs that the model asks for, over all items.

    Raises:
        ModuleFailedError: A part cannot be loaded, or not in a dtype.
        BadInputError: An item cannot be read.
    """
    specs = {spec.id: spec for spec in definition.modules}
    model = definition.model
    values = [{f"input.{name}": value for name, value in item.items()} for item in items]
    found: Distances = {}
    for step_id in TopologicalSorter({name: step.after for name, step in model.steps.items()}).static_order():
        spec = specs[model.steps[step_id].module]
        reference = registry.load(spec.model_copy(update={"dtype": "float32"}), sources)
        taken = _taken(model, step_id, values)
        wanted = model.wanted_outputs(step_id)
        if registry.needs_torch(spec.class_):
            found[spec.prefix] = _distances(spec, reference, taken, wanted, sources)
        for given, before in zip(taken, values, strict=True):
            outputs = reference.run([reference.prepare(given)], frozenset(wanted))[0]
            before.update({f"{step_id}.{name}": value for name, value in outputs.items()})
    return found


def _taken(model: ModelSpec, step_id: str, values: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
    ports = model.steps[step_id].inputs
    return [{port: known[ref] for port, ref in ports.items()} for known in values]


def _distances(
    spec: ModuleSpec,
    reference: Module,
    taken: Sequence[Mapping[str, Value]],
    wanted: Sequence[str],
    sources: CheckpointSources,
) -> dict[Dtype, dict[str, Distance]]:
    found: dict[Dtype, dict[str, Distance]] = {}
    for dtype in list(SHARES)[1:]:
        other = registry.load(spec.model_copy(update={"dtype": dtype}), sources)
        found[dtype] = distance(reference, other, taken, wanted)
        del other
        give_back()
    return found
