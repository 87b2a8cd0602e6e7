"""Finds the parts of a checkpoint that modules of the site's tasks already compute, so that they can be shared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import typer

from s2m3.agents.checkpoints.storage.content import serves
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.definitions import Definition, ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.messages import TaskSpec
from s2m3.snapshot import Site

__all__ = ["Shared", "say_shared", "served_later", "shared_with"]

#: Heads of a few numbers, which are not worth a word.
_LIGHT = ("similarity-head", "classifier-head")


@dataclass(frozen=True, slots=True)
class Shared:
    """A part that tasks on the site hold already.

    Args:
        part: Its name in the checkpoint.
        module: The module that is held.
        tasks: The tasks that use it.
    """

    part: str
    module: ModuleSpec
    tasks: tuple[str, ...]


def shared_with(
    definition: Definition, folder: Path, tasks: Mapping[str, TaskSpec], own: Sequence[Architecture] = ()
) -> tuple[Definition, list[Shared]]:
    """Returns a definition in which parts that tasks hold already are declared the same as those, and these parts.

    A part is held if a module of a checkpoint on this machine gives the same outputs, number for number; it may hold
    more (CLIP's tower with its projection). Only weights of parts whose tensors correspond are read, and once.

    Args:
        definition: Of a checkpoint.
        folder: The checkpoint's.
        tasks: The other tasks of the site.
        own: Architectures besides the shipped ones.
    """
    held, users = _held(tasks)
    modules: dict[str, ModuleSpec] = {}
    found: list[Shared] = []
    for spec in definition.modules:
        one = held.get(spec.id)
        if one is None and spec.class_ not in _LIGHT:
            wanted, at = _wanted(definition, spec), folder.resolve()
            serving = (many for many in held.values() if _gives(many, _place(many, at), spec, at, wanted, own))
            one = next(serving, None)
        if one is not None and spec.class_ not in _LIGHT:
            found.append(Shared(spec.prefix, one, tuple(users[one.id])))
        if one is not None and one.id != spec.id:
            modules |= {one.id: one, spec.id: spec.model_copy(update={"same_as": one.id})}
        else:
            modules[spec.id] = spec
    return definition.model_copy(update={"modules": list(modules.values())}), found


def _held(tasks: Mapping[str, TaskSpec]) -> tuple[dict[str, ModuleSpec], dict[str, list[str]]]:
    """Returns the modules of the tasks' checkpoints by their ids, and which tasks use them."""
    held: dict[str, ModuleSpec] = {}
    users: dict[str, list[str]] = {}
    for task, spec in sorted(tasks.items()):
        definition = spec.definition
        specs = {module.id: module for module in definition.modules} if definition else {}
        for module_id in definition.model.module_ids if definition else ():
            users.setdefault(specs[module_id].same_as or module_id, []).append(task)
        held |= {module.id: module for module in specs.values() if module.same_as is None}
    return {module_id: held[module_id] for module_id in users if module_id in held}, users


def _wanted(definition: Definition, spec: ModuleSpec) -> set[str]:
    model = definition.model
    return {name for step in model.steps if model.steps[step].module == spec.id for name in model.wanted_outputs(step)}


def served_later(
    definition: Definition, folder: Path, tasks: Mapping[str, TaskSpec], own: Sequence[Architecture] = ()
) -> list[tuple[str, str]]:
    """Returns (task, part) of tasks that this checkpoint's part could serve too, once they are added again.

    A part that holds more than theirs (CLIP's text tower with its projection, and that of a pipeline) cannot be served
    by theirs. Their tasks are not changed here: they would then need this checkpoint's folder, which nobody asked for.
    """
    held, users = _held(tasks)
    known = {spec.id for spec in definition.modules}
    at = folder.resolve()
    return [
        (task, spec.prefix)
        for other in held.values()
        if other.id not in known and other.class_ not in _LIGHT
        for spec in definition.modules
        if spec.same_as is None and (theirs := _wanted_by(tasks, users[other.id], other))
        if _gives(spec, at, other, _place(other, at), theirs, own)
        for task in users[other.id]
    ]


def _wanted_by(tasks: Mapping[str, TaskSpec], users: Iterable[str], spec: ModuleSpec) -> set[str]:
    found = (definition for task in users if (definition := tasks[task].definition) is not None)
    return {name for definition in found for name in _wanted(definition, spec)}


def _place(spec: ModuleSpec, beside: Path) -> Path:
    """Returns where a module's checkpoint is on this machine: its path, or the folder of its name beside another."""
    return Path(spec.source) if Path(spec.source).is_absolute() else beside.parent / spec.source


def _gives(
    many: ModuleSpec, many_at: Path, few: ModuleSpec, few_at: Path, wanted: Iterable[str], own: Sequence[Architecture]
) -> bool:
    """Returns whether one module can do the work of another, each a part of the checkpoint at its place."""
    alike = (many.class_, many.dtype, many.config) == (few.class_, few.dtype, few.config)
    if not alike or many.inputs != few.inputs or not few.outputs.items() <= many.outputs.items():
        return False
    needed = ("torch", "transformers")
    if not (many_at.is_dir() and few_at.is_dir()) or any(find_spec(package) is None for package in needed):
        return False
    sources = CheckpointSources(architectures=tuple(own))
    specs = [one.model_copy(update={"source": str(at)}) for one, at in ((many, many_at), (few, few_at))]
    try:
        return serves(open_part(specs[0], sources), open_part(specs[1], sources), wanted)
    except ModuleFailedError:  # the agents that load it say so, and why
        return False


def say_shared(site: Site, shared: Iterable[Shared]) -> None:
    """Prints a line for each part that is held already: for which tasks, on which nodes, and what that saves."""
    for one in shared:
        reports = {node: site.reported[node].modules.get(one.module.id) for node in sorted(site.reported)}
        ready = {node: report for node, report in reports.items() if report is not None and report.state == "ready"}
        saved = max((report.bytes for report in ready.values()), default=0) / 1e6 or one.module.memory_mb
        where = f" on {'/'.join(ready)}" if ready else ""
        typer.echo(f"{one.part} is held already for {', '.join(one.tasks)}{where}: saves {saved:,.1f} MB")
