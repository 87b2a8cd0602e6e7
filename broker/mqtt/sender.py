"""The outgoing side of a link: when its outbox is flushed, and when suspected poison messages are sent alone."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.mqtt.outbox import Callback, Outbox, Refused
from s2m3.schemas.errors import UnauthorisedError

if TYPE_CHECKING:
    from s2m3.broker.mqtt.connection import Connection

__all__ = ["Sender"]

#: How long a connection has to last without the suspects before they are sent, seconds.
_LASTS_S = 0.5
#: Longest time for which other messages wait while suspects are sent alone, seconds.
_ISOLATED_S = 5.0


class Sender:
    """Sends a link's messages over its connection. `add` may be called from any thread, the rest in the loop's.

    Args:
        client_id: The link's client id, for errors.
        limit: Largest payload, bytes.
        loop: The event loop that serves the connection.
        connected: Set while there is a connection.
        refused: Called with the error if the broker refuses a message that has no `on_refused` callback.
    """

    def __init__(
        self,
        client_id: str,
        limit: int,
        loop: Loop,
        connected: threading.Event,
        refused: Callable[[UnauthorisedError], None],
    ) -> None:
        self._outbox = Outbox(client_id, limit, refused)
        self._loop = loop
        self._connected = connected
        #: counts connections, so that a timer of an earlier one does nothing
        self._connection_number = 0
        #: set by the owner before the first connect
        self.connection: Connection

    def __len__(self) -> int:
        return len(self._outbox)

    @property
    def nbytes(self) -> int:
        """Bytes of the payloads that wait to be sent or acknowledged."""
        return self._outbox.nbytes

    @property
    def has_room(self) -> bool:
        """Whether the queue is short enough for optional messages (less than a quarter of its bound)."""
        return self._outbox.has_room

    def add(
        self,
        message: Outgoing,
        on_delivered: Callback | None,
        on_no_subscribers: Callback | None,
        on_refused: Refused | None,
        on_dropped: Refused | None,
    ) -> None:
        """Queues a message and sends it; as Link.publish."""
        self._outbox.add(message, on_delivered, on_no_subscribers, on_refused, on_dropped)
        if self._loop.is_current:
            self._flush()
        else:
            self._loop.call(self._flush)

    def up(self, limit: int) -> None:
        """Sends what waited for the connection; `limit` is the largest payload that the broker takes, bytes."""
        self._outbox.limit = limit
        self._connection_number += 1
        self._flush()
        if self._outbox.suspects:
            self._loop.after(_LASTS_S, partial(self._isolate, self._connection_number))

    def down(self, *, was_up: bool) -> None:
        """Handles a lost connection (`was_up`) or a failed attempt to connect."""
        self._connection_number += 1
        self._outbox.connection_lost(time.monotonic(), was_up=was_up)

    def acknowledged(self, mid: int, refused: str | None, has_subscribers: bool) -> None:  # noqa: FBT001
        """Handles a PUBACK; arguments as in `ConnectionEvents.acknowledged`."""
        self._outbox.acknowledged(mid, refused, has_subscribers)
        if self._outbox.waits:
            self._flush()

    def _isolate(self, connection_number: int) -> None:
        if connection_number == self._connection_number:
            self._outbox.isolate()
            self._loop.after(_ISOLATED_S, partial(self._resume, connection_number))
            self._flush()

    def _resume(self, connection_number: int) -> None:
        if connection_number == self._connection_number:
            self._outbox.resume()
            self._flush()

    def _flush(self) -> None:
        self._outbox.flush(self.connection.publish, connected=self._connected.is_set(), now=time.monotonic())
        self.connection.flush()
