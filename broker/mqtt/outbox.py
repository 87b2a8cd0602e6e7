"""Messages on their way out: bounded, and with what to call when the broker has taken, refused or lost them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas.errors import BusyError, TooLargeError, UnauthorisedError

__all__ = ["Callback", "Outbox", "Refused", "denied"]

_log = structlog.get_logger(__name__)
#: Messages sent and not yet acknowledged, or waiting to be sent.
_OUTGOING = 2_000
_NOT_AUTHORISED = "Not authorized"

Callback = Callable[[], object]
Refused = Callable[[UnauthorisedError], None]


def denied(client_id: str, what: str) -> UnauthorisedError:
    """Returns the error for what a broker's access list keeps from us."""
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
    """What one link has to send, and what it has sent.

    Args:
        client_id: The link's.
        limit: Largest payload, in bytes; the broker's own comes with each connection.
        refused: Told of a refusal that the message has no callback for.
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
        """Whether few enough messages wait that more may be sent that could as well be left out."""
        return len(self) < _OUTGOING // 4

    def add(
        self,
        message: Outgoing,
        on_delivered: Callback | None,
        on_no_subscribers: Callback | None,
        on_refused: Refused | None,
    ) -> None:
        """Takes a message in; see Link.publish.

        Raises:
            TooLargeError: Over the limit.
            BusyError: The bound is reached.
        """
        size = len(message.payload)
        if size > self.limit:
            raise TooLargeError(f"{size} bytes are over the limit of {self.limit}", size=size, limit=self.limit)
        if len(self) >= _OUTGOING:
            raise BusyError(f"{_OUTGOING} messages wait for the broker's acknowledgement")
        self._waiting.append((message, _Sent(message.topic, message.qos, on_delivered, on_no_subscribers, on_refused)))

    def flush(self, publish: Callable[[Outgoing], int], *, connected: bool) -> None:
        """Hands on what waits; `publish` returns the packet id."""
        while self._waiting:
            message, sent = self._waiting.popleft()
            if message.qos or connected:  # QoS 0 without a connection is lost by its nature
                self._sent[publish(message)] = sent

    def connection_lost(self) -> None:
        """QoS 0: sent or lost, nobody will say."""
        self._sent = {mid: sent for mid, sent in self._sent.items() if sent.qos}

    def acknowledged(self, mid: int, refused: str | None, heard: bool) -> None:  # noqa: FBT001  # an event's fields
        """Calls what is to be called; see connection.Events."""
        sent = self._sent.pop(mid, None)
        if sent is None:
            return
        if refused == _NOT_AUTHORISED:
            (sent.on_refused or self._refused)(denied(self._client_id, f"publish on {sent.topic}"))
            return
        if refused is not None:
            _log.error("not_taken", client=self._client_id, topic=sent.topic, reason=refused)
        callback = sent.on_delivered if heard or sent.on_no_subscribers is None else sent.on_no_subscribers
        if callback is not None:
            callback()
