"""Requeues plain requests that hold up the acknowledgements of others: a copy goes to the end of the task's session.

PUBACKs go out in the order in which messages came (MQTT 5, 4.6), and a broker sends only so many messages without one:
a request that takes long would stop the task's requests although all that came after it are answered. Why a copy:
docs/decisions/0007-requeue-slow-plain-requests.md.
"""

import itertools
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import structlog

from s2m3.agents.gateway.open_request import OpenRequest, is_same
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.codec import traceparent_of

__all__ = ["REQUEUED", "Requeue"]

_log = structlog.get_logger(__name__)
#: User property of a copy: a random name, by which the gateway that requeued the request knows the copy.
REQUEUED = "requeued"
#: A request is requeued when this many requests behind it are answered.
_ANSWERED_BEHIND = 8
#: Least number of messages that a broker sends without a PUBACK. Mosquitto goes by Receive Maximum; others may not.
_WINDOW = 20
#: With fewer answered requests behind it, a request is requeued when it has held them up this long, seconds; the time
#: doubles with each of the first two copies.
_LOOK_S, _MOST_DOUBLINGS = 1.0, 2
#: For a broker that sends one message at a time: seconds in which the copies of all open requests are delivered once,
#: so that new requests between them are read; and the interval of checks while no further request may be open.
_ROUND_S, _FULL_S = 0.5, 0.05
#: Payloads of more bytes are copied at most once in `_LARGE_S` seconds. A failed copy is tried again after that time.
_LARGE, _LARGE_S = 64_000, 1.0
#: How long no copies are published after the broker refused one, seconds: its access list may be replaced meanwhile.
_FORBIDDEN_S = 600.0
#: Most copies whose names are remembered: of all answered requests together, and of one open request.
_MOST_EXPECTED, _MOST_OF_ONE = 1_000, 64
_RELEASED = Message("", b"")


@dataclass(slots=True, eq=False)
class _Unacknowledged:
    """A message of the session that is not acknowledged yet, or waits for the acknowledgement of those before it."""

    message: Message
    #: None once the message may be acknowledged
    plain: OpenRequest | None
    link: Link
    #: when it came, monotonic seconds; whether a copy is on its way to the broker; checks at which it held up others
    came_at: float = 0.0
    copying: bool = False
    looks: int = 0

    @property
    def done(self) -> bool:
        return self.plain is None

    def release(self) -> None:
        """Marks the message as one that may be acknowledged, and drops its payload."""
        self.message, self.plain = _RELEASED, None


class Requeue:
    """The unacknowledged messages of one task's session, in their order, and the copies of requeued requests.

    A request is in the broker at every moment: its first message is acknowledged only when the broker has the copy.
    If the gateway dies, the next one receives the copy; if it dies between the two, both, and the answer comes twice.

    Args:
        settings: The agent's settings; `plain_inflight` is the Receive Maximum of the task's session.
        task: The task's name, for the log.
        loop: The agent's event loop.
        link: The agent's link, on which copies are published.
        clock: Returns monotonic seconds.
    """

    def __init__(self, settings: AgentSettings, task: str, loop: Loop, link: Link, clock: Callable[[], float]) -> None:
        self._loop, self._link, self._clock = loop, link, clock
        self._names = {"node": settings.node, "task": task}
        self._window, self._inflight = min(_WINDOW, settings.plain_inflight), settings.plain_inflight
        self._messages: deque[_Unacknowledged] = deque()
        #: name as in `REQUEUED` -> the request, oldest copy first; a lost session brings copies a second time
        self._expected: dict[str, OpenRequest] = {}
        self._timer: Timer | None = None
        self._forbidden_until = 0.0
        self._closed = False

    def came(self, plain: OpenRequest, link: Link, message: Message) -> None:
        """Adds a message of the session that brought a request, or its copy. One of QoS 0 is not acknowledged."""
        if not message.mid:
            return
        if plain.copies:  # the broker has the request in this message: those before are not needed
            self._acknowledge_all(plain)
        held = _Unacknowledged(message, plain, link, self._clock())
        self._messages.append(held)
        if link.sends_one_by_one:
            self._let_next_come(held)
        self._look()

    def passed(self, link: Link, message: Message) -> None:
        """Acknowledges a message of the session that is no request, once the messages before it are acknowledged."""
        link.ack(message)
        if message.mid:
            self._messages.append(_Unacknowledged(_RELEASED, None, link))
            self._look()

    def finished(self, plain: OpenRequest) -> None:
        """Acknowledges the messages of an answered request. The names of its copies stay remembered."""
        self._acknowledge_all(plain)
        self._look()

    def take(self, message: Message) -> OpenRequest | None:
        """Returns the request that a message is the copy of; None for any other, also under the name of a copy."""
        plain = self._expected.get(message.user.get(REQUEUED, ""))
        return plain if plain is None or plain.closed or is_same(plain.message, message) else None

    def forget(self, plain: OpenRequest) -> None:
        """Drops a request that is left to the next gateway."""
        self._expected = {name: other for name, other in self._expected.items() if other is not plain}

    def connection_lost(self) -> None:
        """Drops the messages of a lost connection: the broker delivers them again. Copies may be published again."""
        for held in self._messages:
            held.release()  # a copy that the broker confirms later acknowledges nothing
        self._messages.clear()
        self._forbidden_until = 0.0

    def close(self) -> None:
        """Publishes nothing more. What the broker confirms while the session is closed is still acknowledged."""
        self._closed = True
        for held in self._messages:
            held.message = replace(held.message, payload=b"")
        self._expected.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acknowledge_all(self, plain: OpenRequest) -> None:
        for held in self._messages:
            if held.plain is plain:
                self._acknowledge(held)

    def _acknowledge(self, held: _Unacknowledged) -> None:
        if not held.done:
            held.link.ack(held.message)
            held.release()

    def _let_next_come(self, held: _Unacknowledged) -> None:
        """Requeues the one message that the broker has sent, so that the next one comes: a new one at once."""
        plain, now = held.plain, self._clock()
        if self._closed or plain is None or held.copying or held.message.oversize or now < self._forbidden_until:
            return
        requeued = len({id(other) for other in self._expected.values() if not other.closed})
        turn_s = _ROUND_S / max(requeued, 1) if plain.copies else 0.0
        wait_s = max(held.came_at + turn_s, plain.next_copy_at) - now
        if requeued >= self._inflight:
            wait_s = max(wait_s, _FULL_S)
        if wait_s > 0:
            self._loop.after(wait_s, partial(self._let_next_come, held))
            return
        self._copy(held, plain)

    def _look(self) -> None:
        """Requeues the first request if it holds up enough others; checks again later if it holds up any."""
        while self._messages and self._messages[0].done:
            self._messages.popleft()
        behind = sum(held.done for held in self._messages)
        if self._closed or not behind:
            return
        first = self._messages[0]
        if first.plain is not None and self._may_copy(first, first.plain) and self._is_slow(first, first.plain, behind):
            self._copy(first, first.plain)
        if self._timer is None:
            self._timer = self._loop.after(_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if self._closed:
            return
        holds_up = False
        for held in reversed(self._messages):
            holds_up = holds_up or held.done
            held.looks += holds_up
        self._look()

    def _may_copy(self, held: _Unacknowledged, plain: OpenRequest) -> bool:
        """Whether a message can be copied now: of one that was cut only the beginning is here."""
        is_free = not held.copying and not held.message.oversize
        return is_free and self._clock() >= max(plain.next_copy_at, self._forbidden_until)

    def _is_slow(self, first: _Unacknowledged, plain: OpenRequest, behind: int) -> bool:
        """Whether many behind the first are answered, or it has held up some for long, or nothing else goes on."""
        if behind >= _ANSWERED_BEHIND or first.looks >= 2 ** min(plain.copies, _MOST_DOUBLINGS):
            return True
        return len(self._messages) >= self._window and self._stands_still()

    def _stands_still(self) -> bool:
        """Whether all requests behind the open first ones are answered or slow: a full window would stay full."""
        behind_heads = itertools.dropwhile(lambda held: not held.done, self._messages)
        return all(held.plain is None or held.plain.copies for held in behind_heads)

    def _copy(self, held: _Unacknowledged, plain: OpenRequest) -> None:
        """Publishes a copy with what a gateway reads: the caller's other user properties may have no room beside it."""
        if self._closed:
            return
        message, name = held.message, secrets.token_hex(8)
        now, traceparent = self._clock(), traceparent_of(message.user)
        expiry_s = message.expiry_s
        copy = Outgoing(
            message.topic,
            message.payload,
            reply_to=message.reply_to,
            correlation=message.correlation,
            content_type=message.content_type,
            expiry_s=None if expiry_s is None else max(1, expiry_s - int(now - held.came_at)),
            user=(*((("traceparent", traceparent),) if traceparent else ()), (REQUEUED, name)),
        )
        held.copying, self._expected[name] = True, plain
        try:
            self._link.publish(
                copy,
                on_delivered=partial(self._copied, held),
                on_refused=partial(self._refused, held, name),
                on_dropped=partial(self._dropped, name),
            )
        except S2M3Error as error:  # e.g. the outgoing queue is full
            _log.warning("not_requeued", **self._names, request=plain.request.hex(), error=str(error))
            held.copying, plain.next_copy_at = False, now + _LARGE_S
            self._dropped(name)
            if held.link.sends_one_by_one:
                self._let_next_come(held)
            return
        plain.copies += 1
        if len(message.payload) > _LARGE:
            plain.next_copy_at = now + _LARGE_S
        self._bound(plain)
        _log.debug("requeued", **self._names, request=plain.request.hex())

    def _bound(self, plain: OpenRequest) -> None:
        """Forgets the oldest copies of one request, and of answered ones: the broker has lost or delivered them."""
        mine = [name for name, other in self._expected.items() if other is plain]
        closed = [name for name, other in self._expected.items() if other.closed]
        for name in {*mine[:-_MOST_OF_ONE], *closed[:-_MOST_EXPECTED]}:
            del self._expected[name]

    def _copied(self, held: _Unacknowledged) -> None:
        self._acknowledge(held)
        self._look()

    def _dropped(self, name: str, _: S2M3Error | None = None) -> None:
        """Forgets a copy over which every connection is lost; its request is not copied again."""
        self._expected.pop(name, None)

    def _refused(self, held: _Unacknowledged, name: str, error: S2M3Error) -> None:
        """Pauses requeueing: the access list is of a release whose agents did not publish requests."""
        self._dropped(name)
        held.copying = False
        self._forbidden_until = self._clock() + _FORBIDDEN_S
        _log.warning("requeue_refused", **self._names, error=error.detail)
