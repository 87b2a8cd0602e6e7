"""The command `uninstall`: clears the retained messages of a site on the broker."""

import json
from typing import Annotated

import typer

from s2m3.commands import options
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.settings import BridgeSettings
from s2m3.uninstall import Retained

__all__ = ["uninstall"]


@options.with_settings(
    BridgeSettings,
    discovery_prefix=Annotated[
        str | None, typer.Option(help="prefix of discovery topics, as set in Home Assistant [homeassistant]")
    ],
)
def uninstall(
    settings: BridgeSettings,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be cleared, and clear nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: options.Json = False,
) -> None:
    """Clear what a site has left retained on the broker, and in Home Assistant. `s2m3 uninstall --dry-run`.

    Stop the planner, the agents and the bridge first: those that run publish again what they own.
    """
    with Retained(settings, settings.discovery_prefix) as site:
        own, others, running = site.own, site.others, site.running
        if not as_json:
            _list(own, dry_run=dry_run)
        if running:
            typer.echo(f"still running, they would tell it again: {', '.join(running)}: stop them first", err=True)
        if others:
            typer.echo(f"left alone, as it is of other software: {', '.join(others)}", err=True)
        if own and not (dry_run or yes):
            typer.confirm(f"clear {len(own)} topics?", abort=True)
        refused: list[S2M3Error] = []
        again: list[str] = []
        if own and not dry_run:
            refused = site.clear(own)
            again = site.published_again()
    cleared = [] if dry_run else [topic for topic in own if topic not in again]
    if as_json:
        typer.echo(json.dumps({"found": own, "cleared": cleared, "again": again, "running": running, "others": others}))
    elif cleared:
        typer.echo(f"{len(cleared)} topics are cleared")
    if refused:
        raise refused[0]
    if again:
        raise S2M3Error(f"{len(again)} topics are told again by what still runs, e.g. {again[0]}")


def _list(own: list[str], *, dry_run: bool) -> None:
    if not own:
        typer.echo("nothing is left")
    for topic in own if dry_run else ():
        typer.echo(topic)
