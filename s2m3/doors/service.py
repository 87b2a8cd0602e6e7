"""The process of `s2m3 serve`: one Client for all doors, and each door until a signal ends the process."""

import asyncio
import signal
from dataclasses import dataclass
from typing import Protocol

import structlog

from s2m3.client import Client
from s2m3.doors.http_server import HttpDoor
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.settings import DoorSettings

__all__ = ["Doors", "run"]

_log = structlog.get_logger(__name__)
#: Interval at which the connection to the broker is checked, seconds.
_LOOK_S = 0.5


class _Door(Protocol):
    """A server of one protocol."""

    async def serve(self, client: Client, stop: asyncio.Event) -> None:
        """Serves until `stop` is set."""


@dataclass(frozen=True)
class Doors:
    """The doors to open."""

    ollama: bool = True
    openai: bool = True
    wyoming: bool = False


def run(settings: DoorSettings, doors: Doors) -> None:
    """Opens the doors and serves until SIGINT or SIGTERM.

    Raises:
        BadInputError: An address other than loopback without a token, or a port that is taken.
        S2M3Error: No broker answered, or it refused the login, now or later.
    """
    http = HttpDoor(settings, ollama=doors.ollama, openai=doors.openai) if doors.ollama or doors.openai else None
    opened: list[_Door] = [http] if http else []
    if doors.wyoming:
        from s2m3.doors.wyoming_door import WyomingDoor  # noqa: PLC0415  # its packages are an extra of their own

        opened.append(WyomingDoor(settings))
    with Client(settings=settings, patient=True) as client:
        asyncio.run(_serve(client, opened))


async def _serve(client: Client, doors: list[_Door]) -> None:
    """Runs each door until a signal, or until the broker refuses the login."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as running:
            running.create_task(_watch(client, stop))
            for door in doors:
                running.create_task(door.serve(client, stop))
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
        if isinstance(first, S2M3Error):
            raise first from None
        raise


async def _watch(client: Client, stop: asyncio.Event) -> None:
    """Waits for the end, and ends the process when the connection to the broker has ended for good.

    Raises:
        S2M3Error: The broker refused the login.
    """
    while not stop.is_set():
        if client.refused is not None:
            stop.set()
            raise client.refused
        try:
            await asyncio.wait_for(stop.wait(), _LOOK_S)
        except TimeoutError:
            continue
