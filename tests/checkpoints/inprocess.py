"""A definition's steps one after another in one process: no broker, no agents."""

from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.registry import load
from s2m3.agents.serving.module import Module
from s2m3.schemas.definitions import Definition, ModuleSpec


def loaded(folder: Path, spec: ModuleSpec) -> Module:
    return load(spec, CheckpointSources((folder,)))


def run_module(module: Module, inputs: dict[str, Any], *wanted: str) -> dict[str, Any]:
    return module.run([module.prepare(inputs)], frozenset(wanted))[0]


def run_all(folder: Path, definition: Definition, inputs: dict[str, Any]) -> dict[str, Any]:
    """Returns every step's outputs by `<step>.<output>`."""
    specs = {spec.id: spec for spec in definition.modules}
    values: dict[str, Any] = {f"input.{name}": value for name, value in inputs.items()}
    model = definition.model
    for name in TopologicalSorter({step: s.after for step, s in model.steps.items()}).static_order():
        step = model.steps[name]
        taken = {port: values[ref] for port, ref in step.inputs.items()}
        outputs = run_module(loaded(folder, specs[step.module]), taken, *model.wanted_outputs(name))
        values |= {f"{name}.{output}": value for output, value in outputs.items()}
    return {name: value for name, value in values.items() if not name.startswith("input.")}
