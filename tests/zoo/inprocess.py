"""A model's steps one after another in one process, over the zoo's modules: no broker, no agents."""

from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter

from s2m3.agents.registry import load
from s2m3.agents.serving.module import Module
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.wire.values import Value


@cache
def loaded(module_id: str) -> Module:
    return load(shipped_catalogue().modules[module_id])


def run_module(module_id: str, inputs: Mapping[str, Value], *wanted: str) -> dict[str, Value]:
    module = loaded(module_id)
    return module.run([module.prepare(inputs)], frozenset(wanted))[0]


def run_model(model_id: str, inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the model's answer, as its head gives it."""
    model = shipped_catalogue().models[model_id]
    values: dict[str, Value] = {f"input.{name}": value for name, value in inputs.items()}
    outputs: dict[str, Value] = {}
    for step_id in TopologicalSorter({name: step.after for name, step in model.steps.items()}).static_order():
        step = model.steps[step_id]
        taken = {port: values[ref] for port, ref in step.inputs.items()}
        outputs = run_module(step.module, taken, *model.wanted_outputs(step_id))
        values |= {f"{step_id}.{name}": value for name, value in outputs.items()}
    return outputs
