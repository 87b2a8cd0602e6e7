"""The commands `secure install` and `secure uninstall`: a site's listeners beside those that a Mosquitto has."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2m3.schemas.errors import BadInputError

if TYPE_CHECKING:
    from s2m3.secured.joining import Joining
    from s2m3.secured.registry import Registry

__all__ = ["FirstPort", "Mosquitto", "install", "looked_at", "planned", "say", "uninstall"]

Mosquitto = Annotated[
    Path | None, typer.Option("--mosquitto", help="configuration file of Mosquitto [/etc/mosquitto/mosquitto.conf]")
]
FirstPort = Annotated[
    int | None,
    typer.Option(
        "--first-port", min=1, max=65_533, help="first of three ports: certificates, passwords, browsers [8883]"
    ),
]
_Folder = Annotated[Path, typer.Argument(help="folder of the secured site", show_default=False)]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and write nothing")]
_RESTART = "then: systemctl restart mosquitto"


def install(folder: _Folder, *, mosquitto: Mosquitto = None, dry_run: _DryRun = False) -> None:
    """Add the site's listeners to the Mosquitto on this machine; what its own listeners let in stays as it is.

    `s2m3 secure install /etc/s2m3 --dry-run`
    """
    from s2m3.secured import installing  # noqa: PLC0415  # cryptography: an extra
    from s2m3.secured.folder import SecuredFolder  # noqa: PLC0415

    registry = SecuredFolder.open(folder).registry
    main = _main(mosquitto)
    if dry_run:
        say(installing.look(registry, main))
        typer.echo("nothing is written")
        return
    say(installing.install(registry, main))
    typer.echo(f"done; {_RESTART}. Back again: s2m3 secure uninstall {folder}")


def uninstall(folder: _Folder, *, mosquitto: Mosquitto = None, dry_run: _DryRun = False) -> None:
    """Take the site out of this machine's Mosquitto; its files are what they were.

    `s2m3 secure uninstall /etc/s2m3`
    """
    from s2m3.secured import installing  # noqa: PLC0415  # cryptography: an extra
    from s2m3.secured.folder import SecuredFolder  # noqa: PLC0415

    done = installing.uninstall(SecuredFolder.open(folder).registry, _main(mosquitto), dry_run=dry_run)
    for line in done or ["nothing of this site is there"]:
        typer.echo(line)
    typer.echo("nothing is written" if dry_run else _RESTART)


def planned(folder: Path, *, root: str, first_port: int | None) -> "Registry":
    """Returns the settings of the folder's site, or of the one that would be made there.

    Raises:
        BadInputError: The existing site has other ports.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from s2m3.secured.folder import SecuredFolder, broker_path  # noqa: PLC0415  # cryptography: an extra
    from s2m3.secured.mosquitto import FIRST_PORT  # noqa: PLC0415
    from s2m3.secured.registry import Registry  # noqa: PLC0415

    if (folder / "site.json").exists():
        registry = SecuredFolder.open(folder).registry
        if first_port not in (None, registry.first_port):
            raise BadInputError(
                f"--first-port: {folder} has the ports from {registry.first_port}; its logins name them"
            )
        return registry
    return Registry(
        root=root,
        hosts=(),
        at=broker_path(folder),
        owner=None,
        session_key="",
        server_expires=datetime.now(UTC),
        first_port=FIRST_PORT if first_port is None else first_port,
    )


def looked_at(registry: "Registry", mosquitto: Path | None) -> "Joining | None":
    """Returns the changes that join the site to this machine's Mosquitto; None without a Mosquitto.

    Raises:
        BadInputError: The site cannot be joined, or the named file is not there.
    """
    from s2m3.secured import installing  # noqa: PLC0415  # cryptography: an extra

    if mosquitto is None and not installing.MOSQUITTO.exists():
        return None
    return installing.look(registry, _main(mosquitto), strict=False)


def say(found: "Joining | None") -> None:
    """Prints the notes of a joining, a line each."""
    if found is None:
        typer.echo("no Mosquitto is configured here: --mosquitto names its configuration file")
        return
    for note in found.notes:
        typer.echo(f"  {note}")
    for file in found.changed():
        typer.echo(f"  changed: {file}")


def _main(mosquitto: Path | None) -> Path:
    from s2m3.secured.installing import MOSQUITTO  # noqa: PLC0415  # cryptography: an extra

    main = mosquitto or MOSQUITTO
    if not main.is_file():
        raise BadInputError(f"no Mosquitto configuration {main}: --mosquitto names it")
    return main
