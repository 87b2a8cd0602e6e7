"""The Wyoming door: speech to text and text to speech for Home Assistant's voice, over one Client.

Wyoming knows no token: every device that reaches the port may ask. So the door listens on loopback unless told
otherwise, and then answers private addresses only.
"""

import asyncio
import ipaddress
from contextlib import AsyncExitStack, suppress

import structlog
from wyoming.error import Error

from s2m3.client import Client
from s2m3.doors.announcement import announced
from s2m3.doors.wyoming_events import LONGEST_LINE, EventStream
from s2m3.doors.wyoming_info import read_languages
from s2m3.doors.wyoming_session import Budget, Session
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.settings import DoorSettings

__all__ = ["WyomingDoor"]

_log = structlog.get_logger(__name__)
#: Sounds in memory at once, as a multiple of the largest.
_SOUNDS = 2


class WyomingDoor:
    """Listens, counts connections, and ends them.

    Args:
        settings: The settings of the doors.

    Raises:
        BadInputError: The address is invalid, or the languages cannot be read.
    """

    def __init__(self, settings: DoorSettings) -> None:
        self._settings = settings
        self._languages = read_languages(settings.wyoming_languages)
        self._most = int(settings.max_body_mb * 1e6)
        self._budget = Budget(_SOUNDS * self._most, settings.max_requests)
        self._open: set[asyncio.Task[None]] = set()
        try:
            self._local = ipaddress.ip_address(settings.wyoming_bind).is_loopback
        except ValueError as error:
            raise BadInputError(f"--wyoming-bind is an address, not {settings.wyoming_bind[:80]!r}") from error

    async def serve(self, client: Client, stop: asyncio.Event) -> None:
        """Serves until `stop` is set.

        Raises:
            BadInputError: The port is taken.
        """
        bind, port = self._settings.wyoming_bind, self._settings.wyoming_port
        try:
            server = await asyncio.start_server(
                lambda reader, writer: self._admit(client, reader, writer), bind, port, limit=LONGEST_LINE
            )
        except OSError as error:
            raise BadInputError(f"--wyoming-port {port}: cannot listen on {bind}: {error}") from error
        port = server.sockets[0].getsockname()[1]
        _log.info("wyoming_door", address=bind, port=port, who="this machine" if self._local else "private addresses")
        if not self._local:
            _log.warning("wyoming_has_no_token", text="every device of this network may ask at the Wyoming door")
        async with AsyncExitStack() as ending:
            if not self._local and self._settings.wyoming_announce:
                await ending.enter_async_context(announced(bind, port))
            await stop.wait()
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _admit(self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if len(self._open) >= self._settings.max_connections or not _may_ask(peer):
            _log.warning("wyoming_connection_refused", peer=str(peer), open=len(self._open))
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._connection(client, EventStream(reader, writer, self._most)))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _connection(self, client: Client, stream: EventStream) -> None:
        """Serves one connection until its end or its first error."""
        session = Session(client, stream, self._settings, self._languages, self._budget)
        try:
            await session.serve()
        except S2M3Error as error:
            _log.info("wyoming_request_failed", error=str(error))
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._settings.header_s):
                    await stream.write(Error(text=str(error), code=error.code))
        except (OSError, TimeoutError) as error:
            _log.info("wyoming_connection_lost", error=repr(error))


def _may_ask(peer: object) -> bool:
    """Returns whether an address belongs to this machine or a private network."""
    if not isinstance(peer, tuple):
        return False
    address = ipaddress.ip_address(str(peer[0]).split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_private or mapped.is_loopback or mapped.is_link_local)
