"""Wyoming's events on a connection, read within bounds: wyoming's own reader accepts any length that a peer names.

One event is a line of JSON, then so many bytes of JSON, then so many bytes of sound, as the line says.
"""

import asyncio
import json
from typing import Any

from wyoming.event import Event, Eventable, async_write_event

from s2m3.schemas.errors import BadInputError, RequestTimeoutError, TooLargeError

__all__ = ["LONGEST_LINE", "EventStream"]

#: Most bytes of the line, and of the JSON behind it.
LONGEST_LINE, _MOST_DATA = 65_536, 1_000_000
#: Most bytes of sound that are read at once: an event with more becomes several, each counted before the next is read.
_AT_ONCE = 65_536


class EventStream:
    """The events of one connection.

    Args:
        reader: The connection's reader, made with a limit of LONGEST_LINE.
        writer: The connection's writer.
        most: Most bytes of the sound of one event.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        self._reader, self._writer, self._most = reader, writer, most
        #: an event whose sound is not read completely, and the number of its remaining bytes
        self._begun: tuple[Event, int] | None = None

    async def read(self, within: float) -> Event | None:
        """Returns the next event, or the next part of a long sound; None at the end.

        Args:
            within: Seconds in which all of the event has to arrive.

        Raises:
            BadInputError: The data is no event.
            TooLargeError: The event is over a limit.
            RequestTimeoutError: The event did not arrive in time.
        """
        try:
            async with asyncio.timeout(within):
                return await self._event()
        except TimeoutError:
            raise RequestTimeoutError(f"nothing was said for {within:g} s") from None
        except asyncio.IncompleteReadError:
            return None

    async def _event(self) -> Event | None:
        if self._begun is not None:
            return await self._sound(*self._begun)
        try:
            line = await self._reader.readline()
        except ValueError as error:  # longer than the reader's limit
            raise TooLargeError(f"an event begins with a line of over {LONGEST_LINE} bytes") from error
        if not line.endswith(b"\n"):
            return None
        head = _json(line)
        kind, data = head.get("type"), head.get("data")
        if not isinstance(kind, str):
            raise BadInputError("an event has a type")
        found = dict(data) if isinstance(data, dict) else {}
        if length := _length(head, "data_length", _MOST_DATA):
            found |= _json(await self._reader.readexactly(length))
        length = _length(head, "payload_length", self._most)
        return await self._sound(Event(kind, found), length) if length else Event(kind, found)

    async def _sound(self, event: Event, left: int) -> Event:
        """Returns an event with the next bytes of its sound."""
        taken = min(left, _AT_ONCE)
        self._begun = (event, left - taken) if left > taken else None
        return Event(event.type, event.data, await self._reader.readexactly(taken))

    async def write(self, event: Eventable) -> None:
        """Sends an event; waits until the peer reads."""
        await async_write_event(event.event(), self._writer)


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"an event is no JSON: {error}"[:200]) from error
    if not isinstance(found, dict):
        raise BadInputError("an event is no JSON object")
    return found


def _length(head: dict[str, Any], name: str, most: int) -> int:
    found = head.get(name) or 0
    if not isinstance(found, int) or found < 0:
        raise BadInputError(f"{name} is no length")
    if found > most:
        raise TooLargeError(f"{name} is {found}; at most {most} bytes are read")
    return found
