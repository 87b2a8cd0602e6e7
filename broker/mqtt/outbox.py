"""The bounded queue of outgoing messages, with callbacks for the broker's acknowledgement or refusal of each.

The queue keeps a message until its PUBACK, and sends it again after each reconnect. A message over which the connection
is lost again and again (a poison message) is found and dropped: see `connection_lost`. Retained messages are never
refused for want of room: see `RetainedBacklog`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from s2m3.broker import metrics
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.mqtt.poison import Blame, Dropped
from s2m3.broker.mqtt.retained_backlog import RetainedBacklog
from s2m3.schemas.errors import BusyError, S2M3Error, TooLargeError, UnauthorisedError, UndeliverableError

__all__ = ["IN_FLIGHT", "OVERHEAD_BYTES", "Callback", "Outbox", "Refused", "denied"]

_log = structlog.get_logger(__name__)
#: Most messages that wait to be sent or are in flight (sent and not acknowledged).
_MOST_OUTGOING = 2_000
#: Messages beyond the bound that are taken if they are QoS 0 or retained: a node whose answers fill the queue still
#: tells its load and state, without which it would be taken for lost. Further retained ones wait in the backlog.
_RESERVE = 500
#: Most QoS 1 messages in flight: the connection holds further ones back.
IN_FLIGHT = 100
#: Bytes reserved in a packet for the fixed header, topic and properties.
OVERHEAD_BYTES = 1_024
_NOT_AUTHORISED = "Not authorized"

Callback = Callable[[], object]
Refused = Callable[[S2M3Error], None]


def denied(client_id: str, what: str) -> UnauthorisedError:
    """Returns the error for an action, e.g. `subscribe to x`, that the broker's access list denies."""
    why = "this login has another role or name (s2m3 secure ls), or its rights were taken back"
    return UnauthorisedError(f"the broker does not let {client_id} {what}; {why}")


@dataclass(slots=True, eq=False)
class _Entry:
    """A message with its callbacks, and what the connections that were lost with it in flight say about it."""

    message: Outgoing
    on_delivered: Callback | None
    on_no_subscribers: Callback | None
    on_refused: Refused | None
    on_dropped: Refused | None
    blame: Blame
    #: when it was last sent, monotonic seconds
    sent_at: float = 0.0


class Outbox:
    """The outgoing messages of one link: waiting, in flight, and suspected.

    Args:
        client_id: The link's client id, for errors.
        limit: Largest payload, bytes; to be lowered to the broker's limit after each connect.
        refused: Called with the error if the broker refuses a message that has no `on_refused` callback.
    """

    def __init__(self, client_id: str, limit: int, refused: Callable[[UnauthorisedError], None]) -> None:
        self.limit = limit
        self._client_id = client_id
        self._refused = refused
        #: filled by any thread; all else belongs to the loop's thread
        self._waiting: deque[_Entry] = deque()
        #: retained messages for which the queue had no room; they go after `_waiting`
        self._backlog = RetainedBacklog[_Entry]()
        #: QoS 1 messages that wait for a connection; they go before `_waiting`
        self._held: deque[_Entry] = deque()
        self._sent: dict[int, _Entry] = {}
        #: payload bytes of all entries but those in `_waiting`
        self._nbytes = 0
        #: in flight at two losses: each is sent alone, once `isolate` was called
        self._suspects: deque[_Entry] = deque()
        self._isolating = False
        #: the suspect that is in flight alone
        self._lone: _Entry | None = None
        self._dropped = Dropped()

    def __len__(self) -> int:
        return self._queued + len(self._backlog)

    @property
    def _queued(self) -> int:
        return len(self._waiting) + len(self._held) + len(self._sent) + len(self._suspects)

    @property
    def nbytes(self) -> int:
        """Bytes of the payloads that wait to be sent or acknowledged. To be called in the loop's thread."""
        waiting = sum(len(entry.message.payload) for entry in list(self._waiting))
        return self._nbytes + self._backlog.nbytes + waiting

    @property
    def has_room(self) -> bool:
        """Whether less than a quarter of the bound is used, so that optional messages may be sent too."""
        return len(self) < _MOST_OUTGOING // 4

    @property
    def waits(self) -> bool:
        """Whether a message waits for the acknowledgement of others before `flush` sends it."""
        return self._isolating or len(self._backlog) > 0

    @property
    def suspects(self) -> int:
        """Number of suspects, which wait for `isolate`."""
        return len(self._suspects)

    def add(
        self,
        message: Outgoing,
        on_delivered: Callback | None = None,
        on_no_subscribers: Callback | None = None,
        on_refused: Refused | None = None,
        on_dropped: Refused | None = None,
    ) -> None:
        """Queues a message; callbacks as in Link.publish.

        A retained QoS 1 message that finds the queue full waits in the backlog, and replaces one that waits there on
        its topic, which counts as delivered.

        Raises:
            TooLargeError: The payload, or the whole with topic and properties, exceeds the limit.
            BusyError: The queue is full.
        """
        size = len(message.payload) + max(0, message.header_bytes - OVERHEAD_BYTES)
        if size > self.limit:
            raise TooLargeError(f"{size} bytes are over the limit of {self.limit}", size=size, limit=self.limit)
        entry = _Entry(message, on_delivered, on_no_subscribers, on_refused, on_dropped, Blame())
        is_full = self._queued >= _MOST_OUTGOING + (_RESERVE if message.retain or not message.qos else 0)
        if message.retain and message.qos and (is_full or self._backlog):
            replaced = self._backlog.put(message.topic, entry, len(message.payload))
            if replaced is not None and replaced.on_delivered is not None:
                replaced.on_delivered()
            return
        if is_full:
            raise BusyError(f"{_MOST_OUTGOING} messages wait for the broker's acknowledgement")
        self._waiting.append(entry)

    # ---- sending ------------------------------------------------------------------------------------------------

    def flush(self, publish: Callable[[Outgoing], int], *, connected: bool, now: float) -> None:
        """Passes messages to `publish`, which returns the packet id. Without a connection, QoS 0 is dropped.

        Args:
            publish: Sends a message.
            connected: Whether there is a connection; without one, QoS 1 messages wait for the next.
            now: Monotonic seconds.
        """
        if not connected:
            while self._waiting:
                waiting = self._waiting.popleft()
                if waiting.message.qos:
                    self._held.append(self._counted(waiting))
            return
        while (entry := self._next()) is not None:
            if entry.message.qos and self._dropped.holds(entry.message, now):
                self._drop(entry)
                continue
            entry.sent_at = now
            self._sent[publish(entry.message)] = entry

    def _next(self) -> _Entry | None:
        """Returns the message to be sent now: while suspects are isolated, one of them if nothing is in flight."""
        if self._isolating:
            if any(entry.message.qos for entry in self._sent.values()):
                return None
            if self._suspects:
                self._lone = self._suspects.popleft()
                return self._lone
            self._isolating = False
        while (entry := self._first()) is not None:
            if not (entry.message.retain and self._replaces_suspect(entry)):
                return entry
        return None

    def _first(self) -> _Entry | None:
        if self._held:
            return self._held.popleft()
        if self._waiting:
            return self._counted(self._waiting.popleft())
        if len(self._sent) < _MOST_OUTGOING and (entry := self._backlog.take()) is not None:
            return self._counted(entry)
        return None

    def _replaces_suspect(self, entry: _Entry) -> bool:
        """Puts a retained message in the place of a suspect on its topic, which would otherwise be retained later."""
        for place, suspect in enumerate(self._suspects):
            if suspect.message.retain and suspect.message.topic == entry.message.topic:
                entry.blame = suspect.blame
                self._suspects[place] = entry
                self._nbytes -= len(suspect.message.payload)
                if suspect.on_delivered is not None:
                    suspect.on_delivered()
                return True
        return False

    def _counted(self, entry: _Entry) -> _Entry:
        """Returns an entry that leaves `_waiting`, and counts its bytes."""
        self._nbytes += len(entry.message.payload)
        return entry

    def isolate(self) -> None:
        """Has `flush` send the suspects one by one, each alone: the connection has lasted without them."""
        self._isolating = bool(self._suspects)

    def resume(self) -> None:
        """Ends the isolation, also if an acknowledgement is still to come: other messages do not wait longer."""
        self._isolating, self._lone = False, None
        self._held.extendleft(reversed(self._suspects))
        self._suspects.clear()

    # ---- losses and acknowledgements ----------------------------------------------------------------------------

    def connection_lost(self, now: float, *, was_up: bool) -> None:
        """Has everything without a PUBACK sent again, except QoS 0 messages and poison messages.

        A message in flight at two losses becomes a suspect. It is sent again only after the next connection has
        lasted a while without it, and then alone. If the connection is lost over it alone often enough
        (`Blame.is_guilty`), it is dropped. The restart of a broker or a bad network does not make it so: a
        connection lost with nothing in flight clears all suspects.

        Args:
            now: Monotonic seconds.
            was_up: False if only a connection attempt failed, which tells nothing.
        """
        unacknowledged = [entry for entry in self._sent.values() if entry.message.qos]
        lone, self._lone = self._lone, None
        self._nbytes -= sum(len(entry.message.payload) for entry in self._sent.values() if not entry.message.qos)
        self._sent.clear()
        self._isolating = False
        if was_up and not unacknowledged:
            for suspect in self._suspects:
                suspect.blame.clear()
        for entry in unacknowledged[:IN_FLIGHT]:
            entry.blame.lost(alone_s=now - entry.sent_at if entry is lone else None)
        guilty = [entry for entry in unacknowledged if entry.blame.is_guilty]
        suspects = [entry for entry in unacknowledged if entry.blame.is_suspect and entry not in guilty]
        self._suspects = deque(sorted([*self._suspects, *suspects], key=lambda entry: entry.blame.alone))
        innocent = [entry for entry in unacknowledged if not entry.blame.is_suspect]
        self._held.extendleft(reversed(innocent))
        for entry in guilty:
            self._dropped.add(entry.message, now)
            self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        topic, size = entry.message.topic, len(entry.message.payload)
        self._nbytes -= size
        metrics.MESSAGES_DROPPED.labels(self._client_id).inc()
        _log.error("message_dropped", client=self._client_id, topic=topic[:200], bytes=size, why="poison message")
        error = UndeliverableError(
            f"the broker ended the connection of {self._client_id} each time {size} bytes were sent to {topic[:80]!r}"
        )
        told = entry.on_dropped or entry.on_refused
        if told is not None:
            told(error)
        elif entry.on_delivered is not None:
            entry.on_delivered()

    def acknowledged(self, mid: int, refused: str | None, has_subscribers: bool) -> None:  # noqa: FBT001
        """Calls the callback of an acknowledged message; arguments as in `ConnectionEvents.acknowledged`."""
        entry = self._sent.pop(mid, None)
        if entry is None:
            return
        self._nbytes -= len(entry.message.payload)
        if entry is self._lone:
            self._lone = None
        if refused == _NOT_AUTHORISED:
            error = denied(self._client_id, f"publish on {entry.message.topic}")
            if entry.on_refused is not None:
                entry.on_refused(error)
            else:
                self._refused(error)
            return
        if refused is not None:
            _log.error("not_taken", client=self._client_id, topic=entry.message.topic, reason=refused)
        no_subscribers = entry.on_no_subscribers if not has_subscribers else None
        callback = no_subscribers or entry.on_delivered
        if callback is not None:
            callback()
