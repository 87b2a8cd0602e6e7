"""The bounded queue of outgoing messages, with callbacks for the broker's acknowledgement or refusal of each."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas.errors import BusyError, TooLargeError, UnauthorisedError

__all__ = ["Callback", "Outbox", "Refused", "denied"]

_log = structlog.get_logger(__name__)
#: Most messages that wait to be sent or are in flight (sent and not acknowledged).
_MOST_OUTGOING = 2_000
_NOT_AUTHORISED = "Not authorized"

Callback = Callable[[], object]
Refused = Callable[[UnauthorisedError], None]


def denied(client_id: str, what: str) -> UnauthorisedError:
    """Returns the error for an action, e.g. `subscribe to x`, that the broker's access list denies."""
    why = "this login has another role or name (s2m3 secure ls), or its rights were taken back"
    return UnauthorisedError(f"the broker does not let {client_id} {what}; {why}")


@dataclass(frozen=True, slots=True)
class _Sent:
    topic: str
    qos: int
    on_delivered: Callback | None
    on_no_subscribers: Callback | None
    on_refused: Refused | None


class Outbox:
    """The outgoing messages of one link: waiting, and in flight.

    Args:
        client_id: The link's client id, for errors.
        limit: Largest payload, bytes; to be lowered to the broker's limit after each connect.
        refused: Called with the error if the broker refuses a message that has no `on_refused` callback.
    """

    def __init__(self, client_id: str, limit: int, refused: Refused) -> None:
        self.limit = limit
        self._client_id = client_id
        self._refused = refused
        self._waiting: deque[tuple[Outgoing, _Sent]] = deque()
        self._sent: dict[int, _Sent] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether less than a quarter of the bound is used, so that optional messages may be sent too."""
        return len(self) < _MOST_OUTGOING // 4

    def add(
        self,
        message: Outgoing,
        on_delivered: Callback | None,
        on_no_subscribers: Callback | None,
        on_refused: Refused | None,
    ) -> None:
        """Queues a message; callbacks as in Link.publish.

        Raises:
            TooLargeError: The payload exceeds the limit.
            BusyError: The queue is full.
        """
        size = len(message.payload)
        if size > self.limit:
            raise TooLargeError(f"{size} bytes are over the limit of {self.limit}", size=size, limit=self.limit)
        if len(self) >= _MOST_OUTGOING:
            raise BusyError(f"{_MOST_OUTGOING} messages wait for the broker's acknowledgement")
        self._waiting.append((message, _Sent(message.topic, message.qos, on_delivered, on_no_subscribers, on_refused)))

    def flush(self, publish: Callable[[Outgoing], int], *, connected: bool) -> None:
        """Passes waiting messages to `publish`, which returns the packet id. Drops QoS 0 if not connected."""
        while self._waiting:
            message, sent = self._waiting.popleft()
            if message.qos or connected:  # QoS 0 is not stored for a later connection
                self._sent[publish(message)] = sent

    def connection_lost(self) -> None:
        """Forgets QoS 0 messages in flight: no acknowledgement will arrive for them."""
        self._sent = {mid: sent for mid, sent in self._sent.items() if sent.qos}

    def acknowledged(self, mid: int, refused: str | None, has_subscribers: bool) -> None:  # noqa: FBT001
        """Calls the callback of an acknowledged message; arguments as in `ConnectionEvents.acknowledged`."""
        sent = self._sent.pop(mid, None)
        if sent is None:
            return
        if refused == _NOT_AUTHORISED:
            (sent.on_refused or self._refused)(denied(self._client_id, f"publish on {sent.topic}"))
            return
        if refused is not None:
            _log.error("not_taken", client=self._client_id, topic=sent.topic, reason=refused)
        callback = sent.on_delivered if has_subscribers or sent.on_no_subscribers is None else sent.on_no_subscribers
        if callback is not None:
            callback()
