"""The command `models`: lists the models for tasks, and the modules that they share."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from s2m3.commands import options
from s2m3.commands.terminal import Listing, console
from s2m3.planner.catalogue import catalogue_of
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.settings import CheckpointSettings

__all__ = ["models"]


def models(
    folder: Annotated[
        Path | None, typer.Option("--models", help="folder of further model definitions (*.toml)")
    ] = None,
    architectures: options.Architectures = None,
    *,
    as_json: options.Json = False,
) -> None:
    """List the models that tasks can be made of, the modules they share, and module classes of packages installed here.

    `s2m3 models --models ./my-models`.
    """
    own = own_architectures(CheckpointSettings.load(architectures=architectures).architectures)
    catalogue = catalogue_of(folder, own)
    if as_json:
        typer.echo(json.dumps({name: model.model_dump() for name, model in catalogue.models.items()}))
        return
    table = Listing("model", "takes", "MB", "does, with these modules")
    for name, model in catalogue.models.items():
        modules = catalogue.modules_of(name)
        size = f"{sum(spec.memory_mb for spec in modules):.0f}"
        does = Text.assemble(model.description, "\n", (", ".join(spec.id for spec in modules), "dim"))
        table.add_row(name, ", ".join(model.inputs), size, does)
    from s2m3.agents.registry import installed_classes  # noqa: PLC0415  # no other command needs it

    screen = console()
    screen.print(table)
    for name, found in installed_classes().items():
        missing = found.missing_package()
        line = f"module class {name} of {found.origin}" + (f": it needs {missing}" if missing else "")
        screen.print(line)
