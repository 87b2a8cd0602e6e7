"""Listens to a task's plain requests at the brokers of a cluster, and takes those that nobody else takes.

Requests that wait in the task's session are lost when its broker dies, and a gateway hears nothing of those at another
broker while that one is cut off. Who takes a request claims it, so that the others leave it to it.
"""

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import structlog

from s2m3.agents.gateway.heard_requests import HeardRequests
from s2m3.agents.gateway.open_request import OpenRequest, is_private, kind_of, request_answered_by
from s2m3.agents.gateway.requeue import REQUEUED
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.mqtt.sockets import current_broker
from s2m3.broker.node_states import NodeStates
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.ids import shown_id
from s2m3.schemas.messages import Claims, NodeState
from s2m3.schemas.request_ids import CONTENT_BYTES
from s2m3.schemas.settings import AgentSettings

__all__ = ["Lookout"]

_log = structlog.get_logger(__name__)
#: Time in which the session must deliver what a gateway's listener heard, and the interval of checks, seconds.
_LATE_S, _LOOK_S = 2.0, 0.5
#: Time in which the gateway must claim a request that a deputy heard: random between these for each deputy, so that one
#: of two takes it and the other one hears its claim. A request that is claimed no more for this long is taken too.
_UNCLAIMED_S = (4.0, 6.0)
#: Number of a deputy's one listener. A gateway's listeners have the numbers of the brokers.
_OWN = -1
#: Senders of claims that are remembered, and of each the newest numbers; and most answered requests.
_MOST_SENDERS, _MOST_NUMBERS, _MOST_ANSWERED = 64, 64, 1_000
#: Of an answer the beginning is kept, bytes: it names the request.
_ANSWER_BYTES = 4_096


class Lookout:
    """A gateway's listener at each broker, or a deputy's at its own one. Without `fallback` it does nothing.

    All methods run in the loop's thread.

    Args:
        task: The task.
        settings: The agent's settings.
        loop: The agent's event loop.
        main: The agent's own connection.
        clock: Returns monotonic seconds.
        is_up: Whether what the gateway's listeners heard will be taken: its session is connected.
        has_room: Whether more requests may be open; otherwise they wait.
        on_missing: Called with the listener's link, for the answer, and each request that nobody took; it has no packet
            id, and is not acknowledged.
    """

    def __init__(
        self,
        task: str,
        settings: AgentSettings,
        loop: Loop,
        main: Link,
        clock: Callable[[], float],
        *,
        is_up: Callable[[], bool],
        has_room: Callable[[], bool],
        on_missing: Callable[[Link, Message], None],
    ) -> None:
        self._task, self._settings, self._loop, self._main, self._clock = task, settings, loop, main, clock
        self._is_up, self._has_room, self._on_missing = is_up, has_room, on_missing
        self._requests = HeardRequests(partial(kind_of, settings))
        self._links: dict[int, Link] = {}
        self._unclaimed_s = secrets.SystemRandom().uniform(*_UNCLAIMED_S)
        #: request id -> kind, of the requests under way; kinds of those that were answered since the last claims
        self._open: dict[bytes, str] = {}
        self._answered: deque[str] = deque(maxlen=_MOST_ANSWERED)
        self._sender, self._number = secrets.token_hex(4), 0
        #: sender -> the numbers of its newest claims
        self._seen: dict[str, set[int]] = {}
        #: newest answers that are ours, or were seen: request ids as shown in them
        self._known_answers: deque[str] = deque(maxlen=_MOST_ANSWERED)
        #: of a deputy: the task's gateway, and its state
        self._gateway: str | None = None
        self._states = NodeStates()
        self._timer = loop.after(_LOOK_S, self._look) if settings.fallback else None

    # ---- listening --------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Listens at each broker, for a gateway."""
        self._gateway = None
        addresses = self._settings.addresses if self._settings.fallback else []
        self._listen_at(
            {
                number: self._settings.model_copy(update={"host": host, "port": port, "fallback": ""})
                for number, (host, port) in enumerate(addresses)
            }
        )

    def stand_by(self, gateway: str) -> None:
        """Listens at the agent's own broker, for a deputy of a gateway at another broker."""
        if self._gateway == gateway:
            return
        if self._gateway is not None:
            self._close_links()
        self._gateway, self._states = gateway, NodeStates()
        self._listen_at({_OWN: self._settings} if self._settings.fallback else {})

    def _listen_at(self, wanted: Mapping[int, AgentSettings]) -> None:
        if self._links.keys() != wanted.keys():
            self._close_links()
            self._links = {number: self._listen(number, settings) for number, settings in wanted.items()}

    def _listen(self, number: int, settings: AgentSettings) -> Link:
        limit = self._settings.max_message_bytes
        link = Link(settings, f"s2m3-lookout-{secrets.token_hex(6)}", self._loop, cut_over=limit)
        root, heard = settings.root, partial(self._heard, number)
        link.subscribe(topics.REQUEST.at(root, task=self._task), heard, retained=False)
        link.subscribe(topics.REQUEST_INPUT.all(root, task=self._task), heard, retained=False)
        link.subscribe(topics.REQUEST_TRANSACTION.all(root, task=self._task), heard, retained=False, required=False)
        listen(link, topics.CLAIMS, self._on_claims, required=False, task=self._task)
        if self._gateway is not None:
            listen(link, topics.NODE_STATE, self._on_state, node=self._gateway)
            link.subscribe(topics.RESPONSE.at(root, task=self._task), self._on_answer, retained=False, required=False)
        link.begin()
        return link

    def _close_links(self) -> None:
        for link in self._links.values():
            link.stop(timeout_s=0.0)
        self._links = {}

    def _heard(self, number: int, message: Message) -> None:
        if message.payload and not message.retain and REQUEUED not in message.user:
            self._requests.heard(number, message, self._clock())

    def _on_state(self, node: str, state: NodeState | None) -> None:
        self._states.update(node, state)

    # ---- what the gateway or deputy has under way -------------------------------------------------------------------

    def came(self, message: Message) -> bool:
        """Notes a request that the session delivered; returns whether it was taken, or answered elsewhere, before."""
        return bool(self._links) and REQUEUED not in message.user and self._requests.came(message, self._clock())

    def opened(self, plain: OpenRequest) -> None:
        """Notes a request that is under way here."""
        if self._links:
            self._open[plain.request] = kind_of(self._settings, plain.message)
            self._known_answers.append(shown_id(plain.request))

    def ended(self, plain: OpenRequest, *, answered: bool) -> None:
        """Notes that a request is not under way any more: it was answered, or dropped."""
        if (kind := self._open.pop(plain.request, None)) is None:
            return
        if answered:
            self._answered.append(kind)
        elif plain.answers is not None:
            self._requests.released(kind)

    def answer_links(self, plain: OpenRequest) -> list[Link]:
        """Returns the connections for an answer, in the order in which they are to be tried while nobody hears it.

        While brokers of a cluster do not reach one another, an answer has to be published at the caller's.
        """
        own = self._own_number
        number = self._requests.listener_of(self._open.get(plain.request, ""), own)
        elsewhere = self._links.get(number) if number is not None and number != own else None
        first = plain.answers or elsewhere or self._main
        others = [link for link in (self._main, *self._links.values()) if link is not first]
        return [link for link in (first, *others) if link.connected] or [self._main]

    @property
    def _own_number(self) -> int:
        """The number of the broker that the agent is connected to."""
        brokers = [f"{host}:{port}" for host, port in self._settings.addresses]
        current = current_broker(self._settings)
        return brokers.index(current) if current in brokers else 0

    # ---- claims, and what nobody claims -----------------------------------------------------------------------------

    def _on_claims(self, _: str, claims: Claims | None) -> None:
        if claims is None or claims.sender == self._sender:
            return
        seen = self._seen.setdefault(claims.sender, set())
        if claims.number not in seen:
            seen.add(claims.number)
            self._requests.claimed(claims.claimed, self._clock())
            # a deputy believes of an answer that all may see only what it sees at its own broker
            answered = [kind for kind in claims.answered if self._gateway is None or is_private(kind)]
            self._requests.answered(answered, self._clock())
        seen -= {number for number in seen if number < claims.number - _MOST_NUMBERS}
        if len(self._seen) > _MOST_SENDERS:
            del self._seen[next(iter(self._seen))]

    def _on_answer(self, message: Message) -> None:
        """Notes an answer of another node: its request id begins with the request's kind."""
        request = request_answered_by(message.payload[:_ANSWER_BYTES])
        if request is not None and request not in self._known_answers:
            self._known_answers.append(request)
            self._requests.answered([request[: 2 * CONTENT_BYTES]], self._clock())

    def _look(self) -> None:
        self._timer = self._loop.after(_LOOK_S, self._look)
        now = self._clock()
        late_s = _LATE_S if self._gateway is None else self._unclaimed_s
        # a gateway that is known to be lost has a successor, which the session brings what waits there
        if self._links and self._is_up() and self._has_room() and self._gateway not in self._states.lost:
            for number, message in self._requests.take_missing(now - late_s, now - self._unclaimed_s):
                link = self._links.get(number) or next(iter(self._links.values()))
                self._on_missing(link, replace(message, mid=0))
        self._claim()

    def _claim(self) -> None:
        """Publishes what is under way at each broker where this node listens: not all of them may reach one another."""
        waiting = self._requests.missing() if self._gateway is None and self._is_up() else []
        claimed, answered = [*self._open.values(), *waiting], list(self._answered)
        links = [link for link in self._links.values() if link.connected]
        if not links or not (claimed or answered):
            return
        self._answered.clear()
        self._number += 1
        claims = Claims(
            node=self._settings.node, sender=self._sender, number=self._number, claimed=claimed, answered=answered
        )
        message = Outgoing(topics.CLAIMS.at(self._settings.root, task=self._task), claims.encode())
        for link in links:
            try:
                link.publish(message, on_refused=lambda _: None)  # an access list of an older release has no such topic
            except S2M3Error as error:  # a deputy may answer too
                _log.debug("claims_not_published", task=self._task, error=str(error))

    def close(self) -> None:
        """Disconnects all listeners."""
        if self._timer is not None:
            self._timer.cancel()
        self._close_links()
