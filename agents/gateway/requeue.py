"""Requeues plain requests that hold up the acknowledgements of others: a copy goes to the end of the task's session.

PUBACKs go out in the order in which messages came (MQTT 5, 4.6), and a broker sends only so many messages without one:
a request that takes long would stop the task's requests although all that came after it are answered. Why a copy:
docs/decisions/0007-requeue-slow-plain-requests.md.
"""

import secrets
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import structlog

from s2m3.agents.gateway.open_request import OpenRequest
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.schemas.errors import S2M3Error

__all__ = ["REQUEUED", "Requeue"]

_log = structlog.get_logger(__name__)
#: User property of a copy: a random name, by which the gateway that requeued the request knows the copy.
REQUEUED = "requeued"
#: A request is requeued when so many behind it are answered. Brokers have a window of 20 messages or more.
_ANSWERED_BEHIND = 8
#: With fewer it is requeued when it has held them up so long, seconds; the time doubles with each copy.
_LOOK_S = 1.0
#: Most copies of answered requests that are remembered until the broker delivers them.
_MOST_EXPECTED = 1_000


@dataclass(slots=True, eq=False)
class _Unacknowledged:
    """A message of the session that is not acknowledged yet."""

    message: Message
    plain: OpenRequest
    link: Link
    #: whether a copy is on its way to the broker; whether the message may be acknowledged; checks as the first of all
    copying: bool = False
    done: bool = False
    looks: int = 0


@dataclass(slots=True)
class Requeue:
    """The unacknowledged messages of one task's session, in their order, and the copies of requeued requests.

    A request is in the broker at every moment: its first message is acknowledged only when the broker has the copy.
    If the gateway dies, the next one receives the copy; if it dies between the two, both, and the answer comes twice.

    Args:
        node: The node's name, for the log.
        task: The task's name, for the log.
        loop: The agent's event loop.
        link: The agent's link, on which copies are published.
    """

    node: str
    task: str
    loop: Loop
    link: Link
    _messages: deque[_Unacknowledged] = field(default_factory=deque)
    #: name as in `REQUEUED` -> the request whose copy the broker has not delivered yet
    _expected: dict[str, OpenRequest] = field(default_factory=dict)
    #: request -> number of its copies so far
    _copies: dict[bytes, int] = field(default_factory=dict)
    _looking: bool = False
    _forbidden: bool = False

    def came(self, plain: OpenRequest, link: Link, message: Message) -> None:
        """Adds a message of the session that brought a request, or its copy. One of QoS 0 is not acknowledged."""
        if message.mid:
            plain.unacknowledged.append(message)
            self._messages.append(_Unacknowledged(message, plain, link))

    def finished(self, plain: OpenRequest) -> None:
        """Acknowledges the messages of an answered request."""
        self._copies.pop(plain.request, None)
        for held in [held for held in self._messages if held.plain is plain]:
            self._acknowledge(held)
        self._look()

    def take(self, message: Message) -> OpenRequest | None:
        """Returns the request that a message is the expected copy of; None for any other message."""
        name = message.user.get(REQUEUED)
        return self._expected.pop(name, None) if name is not None else None

    def forget(self, plain: OpenRequest) -> None:
        """Drops a request that is left to the next gateway."""
        self._copies.pop(plain.request, None)
        self._expected = {name: other for name, other in self._expected.items() if other is not plain}

    def connection_lost(self) -> None:
        """Drops the messages of a lost connection: the broker delivers them again."""
        for held in self._messages:
            held.done = True  # a copy that the broker confirms later acknowledges nothing
            held.plain.unacknowledged.clear()
        self._messages.clear()

    def _acknowledge(self, held: _Unacknowledged) -> None:
        if held.done:
            return
        held.done = True
        held.plain.unacknowledged.remove(held.message)
        held.link.ack(held.message)

    def _look(self) -> None:
        """Requeues the first request if enough of those behind it are answered; else looks again in a while."""
        while self._messages and self._messages[0].done:
            self._messages.popleft()
        if not self._messages or self._forbidden or self._messages[0].copying:
            return
        behind = sum(held.done for held in self._messages)
        if behind >= _ANSWERED_BEHIND:
            self._copy(self._messages[0])
        elif behind and not self._looking:
            self._looking = True
            self.loop.after(_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        if self._messages:
            first = self._messages[0]
            first.looks += 1
            is_long = first.looks >= 2 ** self._copies.get(first.plain.request, 0)
            if is_long and not (first.copying or self._forbidden) and any(held.done for held in self._messages):
                self._copy(first)
        self._look()

    def _copy(self, held: _Unacknowledged) -> None:
        plain, message, name = held.plain, held.message, secrets.token_hex(8)
        copy = Outgoing(
            message.topic,
            message.payload,
            reply_to=message.reply_to,
            correlation=message.correlation,
            content_type=message.content_type,
            expiry_s=message.expiry_s,
            user=(*(pair for pair in message.user_properties if pair[0] != REQUEUED), (REQUEUED, name)),
        )
        held.copying = True
        self._copies[plain.request] = self._copies.get(plain.request, 0) + 1
        self._expected[name] = plain
        self._bound()
        try:
            self.link.publish(
                copy,
                on_delivered=partial(self._copied, held),
                on_refused=self._refused,
                on_dropped=partial(self._dropped, name),
            )
            _log.debug("requeued", node=self.node, task=self.task, request=plain.request.hex())
        except S2M3Error as error:  # the outgoing queue is full
            _log.warning("not_requeued", node=self.node, task=self.task, request=plain.request.hex(), error=str(error))
            held.copying = False
            del self._expected[name]

    def _bound(self) -> None:
        """Forgets the oldest copies of answered requests that the broker has not delivered: it may have lost them."""
        closed = [name for name, plain in self._expected.items() if plain.closed]
        for name in closed[: max(0, len(closed) - _MOST_EXPECTED)]:
            del self._expected[name]

    def _copied(self, held: _Unacknowledged) -> None:
        self._acknowledge(held)
        self._look()

    def _dropped(self, name: str, _: S2M3Error) -> None:
        """Forgets a copy over which every connection is lost; its request is not copied again."""
        self._expected.pop(name, None)

    def _refused(self, error: S2M3Error) -> None:
        """Requeues no more: the access list is of a release whose agents did not publish requests."""
        self._forbidden = True
        _log.warning("requeue_refused", node=self.node, task=self.task, error=error.detail)
