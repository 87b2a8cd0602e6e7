"""Writes and removes the files that join a site to the Mosquitto on this machine. It starts and stops no broker."""

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from s2m3.schemas.errors import BadInputError
from s2m3.secured.existing import read_configuration, without_blocks
from s2m3.secured.joining import LOCAL_FILE, OWN_FILE, Joining, join
from s2m3.secured.registry import Registry

__all__ = ["MOSQUITTO", "install", "look", "uninstall"]

#: Mosquitto's configuration on Debian.
MOSQUITTO = Path("/etc/mosquitto/mosquitto.conf")


def look(registry: Registry, main: Path, *, strict: bool = True) -> Joining:
    """Returns the changes that `install` would make; writes nothing.

    Args:
        registry: The site's settings.
        main: The file that Mosquitto is started with.
        strict: Whether a port that another program uses now is an error; otherwise it is a note.

    Raises:
        BadInputError: The site cannot be joined to this Mosquitto; the text has the reason and a remedy.
    """
    own = Path(registry.at) / "mosquitto.conf"
    there = read_configuration(main, own)
    made = join(there, registry.at, registry.root, registry.ports, has_ipv6=_is_free("::1", 0))
    made.before = {file: file.read_text(encoding="utf-8").splitlines() for file in made.files if file.exists()}
    if made.link.exists() and made.link.resolve() != own.resolve():
        raise BadInputError(
            f"{made.link} is there already, and leads to {made.link.resolve()}: take that site out first"
        )
    if not there.is_joined and (taken := [port for port in registry.ports if not _is_free("", port)]):
        text = f"port {taken[0]} is taken on this machine: --first-port of secure init chooses others"
        if strict:
            raise BadInputError(text)
        made.notes.append(text)
    return made


def install(registry: Registry, main: Path) -> Joining:
    """Joins the site to this Mosquitto, which has to be restarted then; returns the changes.

    Raises:
        BadInputError: The site cannot be joined, or a file cannot be written.
    """
    made = look(registry, main)
    try:
        for file in made.changed():
            _replace(file, made.files[file])
        if not made.link.is_symlink():
            made.link.symlink_to(Path(registry.at) / "mosquitto.conf")
    except OSError as error:
        raise BadInputError(f"{error.filename} cannot be written: {error.strerror} (as root?)") from error
    return made


def uninstall(registry: Registry, main: Path, *, dry_run: bool) -> list[str]:
    """Removes a site from this Mosquitto, and restores the household's files; returns the changes.

    Raises:
        BadInputError: A file cannot be read or written.
    """
    there = read_configuration(main, Path(registry.at) / "mosquitto.conf")
    done: list[str] = []
    try:
        for file in there.texts:
            text = file.read_text(encoding="utf-8").splitlines()
            if file.name != LOCAL_FILE and text != (before := without_blocks(text)):
                done.append(f"{file} is what it was before")
                if not dry_run:
                    _replace(file, before)
        for added in [] if there.folder is None else [there.folder / name for name in (OWN_FILE, LOCAL_FILE)]:
            if added.is_symlink() or added.exists():
                done.append(f"{added} is removed")
                if not dry_run:
                    added.unlink()
    except OSError as error:
        raise BadInputError(f"{error.filename} cannot be written: {error.strerror} (as root?)") from error
    return done


def _replace(file: Path, lines: list[str]) -> None:
    """Replaces a text file atomically; mode and owner stay."""
    new = file.with_name(f".{file.name}.s2m3-new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new.chmod(0o644)
    if file.exists():
        shutil.copymode(file, new)
        with suppress(PermissionError):
            os.chown(new, file.stat().st_uid, file.stat().st_gid)
    new.replace(file)


def _is_free(address: str, port: int) -> bool:
    """Whether a server could listen on a port of an address now; port 0: on any port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError:
        return False
    return True
