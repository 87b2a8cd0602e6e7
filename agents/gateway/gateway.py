"""The gateway of a task: takes plain requests from the task's persistent session; sends PUBACK after the answer."""

import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from s2m3.agents.gateway.answer_publisher import AnswerPublisher
from s2m3.agents.gateway.lookout import Lookout
from s2m3.agents.gateway.open_request import OpenRequest, check_size, id_for, read_request
from s2m3.agents.gateway.orphans import Orphans
from s2m3.agents.gateway.plain_stream import PlainStream
from s2m3.agents.gateway.requeue import Requeue
from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.supervision.watchdog import LOOP, Watchdog
from s2m3.broker import metrics
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.requests.plain_result import encode_result
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, BusyError, S2M3Error, TooLargeError, UnauthorisedError
from s2m3.schemas.ids import shown_id
from s2m3.schemas.messages import Event
from s2m3.schemas.sessions import TASK_SESSION_S, task_client_id
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.codec import traceparent_of
from s2m3.schemas.wire.plain import PlainRequest, encode_plain_error, encode_plain_value
from s2m3.schemas.wire.plain_topics import transaction_in
from s2m3.schemas.wire.reply_topics import check_reply_topic

__all__ = ["Gateway"]

_log = structlog.get_logger(__name__)
#: Delay before a lost session is connected again, seconds: random between these.
_RECONNECT_S = (0.2, 1.0)
#: Most plain requests that wait because `plain_inflight` requests are in flight.
_WAITING = 1_000
#: Longest time that reading a request may take, seconds.
_PARSE_S = 10.0


class Gateway:
    """Serves the plain requests of one task while the plan names this node as its gateway.

    The persistent session belongs to the task (its own client id, no clean start): requests wait in it while there is
    no gateway, and the next gateway receives what this one did not acknowledge. A takeover of the session looks like
    any lost connection: `may_return` has the plan checked before the gateway reconnects
    (docs/decisions/0001-mqtt-as-data-plane.md).

    Requests whose connection was lost (orphans) go on, but their answers are held back. If the broker delivers such a
    request again, it continues on the new connection. If the broker has lost the session, no other gateway can know the
    request, and it is answered after a while; once more, if the answer was in flight. If our node was declared lost
    meanwhile, another gateway has received the request, and it is dropped here.

    Args:
        task: The task's name.
        settings: The agent's settings.
        loop: The agent's event loop.
        dispatcher: Sends the requests, as for a client.
        answers: The agent's link, on which answers are published.
        may_return: Reads the agent's plan again; if it still names us, the agent calls `connect`.
        publish_event: Publishes an event.
        watchdog: Marks which request is read, and knows those that ended this node's process several times.
        room: The memory for payloads that wait.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        task: str,
        settings: AgentSettings,
        loop: Loop,
        dispatcher: Dispatcher,
        answers: Link,
        *,
        may_return: Callable[[], None],
        publish_event: Callable[[Event], None],
        watchdog: Watchdog,
        room: PayloadRoom,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self._settings, self._loop = settings, loop
        self._dispatcher = dispatcher
        self._requeue = Requeue(settings, task, loop, answers, clock)
        is_up, free, missing = self._is_up, self._has_room, self._take
        self._lookout = Lookout(task, settings, loop, answers, clock, is_up=is_up, has_room=free, on_missing=missing)
        links = self._lookout.answer_links
        self._answers = AnswerPublisher(
            task, settings, loop, answers, links, on_delivered=self._delivered, on_failure=self._note_failure
        )
        self._may_return = may_return
        self._publish_event = publish_event
        self._watchdog, self._room = watchdog, room
        room.count(f"gateway {task}", lambda: self._nbytes)
        self._link: Link | None = None
        self._plain: dict[bytes, OpenRequest] = {}
        self._nbytes = 0  # of their messages
        self._orphans = Orphans(loop, self._answers, self._is_connected)
        #: those beyond `plain_inflight`, not dispatched yet; Mosquitto holds them back itself (Receive Maximum)
        self._waiting: deque[OpenRequest] = deque()
        self._broker_was_away = False
        self._timer: Timer | None = None
        self._closed = self._is_deputy = False
        self._refused: UnauthorisedError | None = None

    def connect(self) -> None:
        """Takes the task's session over, without waiting for the connection. Must be called in the loop's thread."""
        if self._link is not None or self._closed or self._refused is not None:
            return
        self._is_deputy = False
        self._lookout.serve()
        link = Link(
            self._settings,
            task_client_id(self._settings, self.task),
            self._loop,
            session_expiry_s=TASK_SESSION_S,
            manual_ack=True,
            receive_maximum=self._settings.plain_inflight,
            cut_over=self._settings.max_message_bytes,
            on_ended=self._on_session_lost,
            reconnect=False,
        )
        self._link = link
        self._dispatcher.follow(self.task)
        root = self._settings.root
        subscribe = partial(link.subscribe, handler=partial(self._on_request, link), retained=False)
        subscribe(topics.REQUEST.at(root, task=self.task))
        subscribe(topics.REQUEST_INPUT.all(root, task=self.task))
        # not required: the access list of an older release has no such topic
        subscribe(topics.REQUEST_TRANSACTION.all(root, task=self.task), required=False)
        link.begin()
        _log.info("gateway_up", node=self._settings.node, task=self.task)

    def stand_by(self, gateway: str) -> None:
        """Takes only what the gateway, a node at another broker of the cluster, does not. In the loop's thread."""
        self._is_deputy = True
        self._leave_session()
        self._requeue.connection_lost()
        self._dispatcher.follow(self.task)
        self._lookout.stand_by(gateway)

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused the session's connection; None if it did not."""
        return self._refused

    def close(self) -> None:
        """Disconnects; the broker delivers what is not acknowledged to the next gateway."""
        self._closed = True
        self._room.count(f"gateway {self.task}", None)
        self._leave_session()
        self._drop([plain for plain in self._plain.values() if plain.link is not None])
        self._requeue.close()
        self._lookout.close()
        self._loop.call(partial(self._dispatcher.unfollow, self.task))

    def _leave_session(self) -> None:
        """Disconnects the session, and drops what it brought: the next gateway gets that."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._broker_was_away:
            self.give_up()
        if self._link is not None:
            self._drop([plain for plain in self._plain.values() if plain.link is self._link])
            self._link.stop(timeout_s=1.0)
            self._link = None

    def broker_lost(self) -> None:
        """Notes that the agent's own connection was lost too: the broker may have restarted and lost its sessions."""
        self._broker_was_away = True
        for plain in self._plain.values():
            plain.in_doubt = plain.sent

    def give_up(self) -> None:
        """Drops all orphans: this node was declared lost, so the next gateway has received them."""
        self._drop(list(self._orphans))

    def _on_session_lost(self) -> None:
        if self._closed or self._link is None:
            return
        self._refused = self._link.refused
        lost, self._link = self._link, None
        lost.abort()
        self._requeue.connection_lost()
        for plain in self._plain.values():
            plain.link = None if plain.link is lost else plain.link
        self._orphans.hold(plain for plain in self._plain.values() if plain.link is None)
        if self._refused is not None:  # reconnecting would be refused too: the agent ends
            return
        wait = random.uniform(*_RECONNECT_S)  # noqa: S311  # jitter
        self._timer = self._loop.after(wait, self._may_return)

    def _drop(self, dropped: list[OpenRequest]) -> None:
        """Cancels requests without an answer: the next gateway answers them."""
        for plain in dropped:
            self._dispatcher.cancel(plain.request)
            self._requeue.forget(plain)
            self._lookout.ended(plain, answered=False)
            self._forget(plain)
        self._waiting = deque(plain for plain in self._waiting if plain.request in self._plain)

    def _forget(self, plain: OpenRequest) -> None:
        if self._plain.pop(plain.request, None) is not None:
            self._nbytes -= len(plain.message.payload)
        plain.close()
        self._orphans.remove(plain)

    def _on_request(self, link: Link, message: Message) -> None:
        if link is not self._link:
            return
        if message.retain or not (message.payload or message.oversize):
            # a retained copy is older than this subscription; an empty message clears a retained topic: nobody waits
            metrics.PLAIN_PASSED.labels("retained" if message.retain else "empty").inc()
            self._requeue.passed(link, message)
            return
        if self._is_known(link, message):
            return
        if self._lookout.came(message):
            self._requeue.passed(link, message)
        else:
            self._take(link, message)

    def _take(self, link: Link, message: Message) -> None:
        """Takes a request that is not under way: from the session, or from a listener, which nobody else took."""
        too_much, reply_to = self._room.refusal(len(message.payload)), message.reply_to
        answers = link if link is not self._link else None
        plain = OpenRequest(id_for(self._settings, message), message, link, reply_to=reply_to, answers=answers)
        self._plain[plain.request] = plain
        self._nbytes += len(message.payload)
        self._requeue.came(plain, link, message)
        self._lookout.opened(plain)
        try:
            check_reply_topic(self._settings.root, self.task, message.reply_to)
            check_size(message, self._settings.max_message_bytes)
        except BadInputError as error:
            self._note_failure(plain.request, error)
            plain.reply_to = None
            self._refuse(plain, error)
            return
        except TooLargeError as error:
            self._refuse(plain, error)
            return
        if too_much is not None:
            self._refuse(plain, too_much)
        elif len(self._plain) - len(self._waiting) <= self._settings.plain_inflight:
            self._dispatch(plain)
        elif len(self._waiting) < _WAITING:
            self._waiting.append(plain)
        else:
            self._refuse(plain, BusyError(f"{_WAITING} plain requests of {self.task} wait"))

    def _is_connected(self) -> bool:
        return self._link is not None and self._link.connected

    def _is_up(self) -> bool:
        return self._is_deputy or self._is_connected()

    def _has_room(self) -> bool:
        return self._is_deputy or len(self._plain) < self._settings.plain_inflight

    def _is_known(self, link: Link, message: Message) -> bool:
        """Whether the message is a request's copy or an orphan's redelivery: the request continues, on this link."""
        plain = self._requeue.take(message)
        if plain is None and not self._orphans:
            self._broker_was_away = False
            return False
        plain = plain or self._orphans.find(message)
        if plain is None:
            return False
        if plain.closed:  # answered before its copy came
            self._requeue.passed(link, message)
            return True
        self._orphans.remove(plain)
        plain.message, plain.link = message, link
        self._requeue.came(plain, link, message)
        if plain.was_acknowledged and not plain.sent:  # the broker remembers everything: what it took is delivered
            self._delivered(plain)
        else:
            self._answers.send(plain)
        return True

    def _dispatch(self, plain: OpenRequest) -> None:
        """Parses and submits a request; answers an invalid one with the error."""
        try:
            self._watchdog.refuse_poison(plain.request)
            with self._watchdog.running(LOOP, "gateway", (plain.request,), _PARSE_S):
                parsed = read_request(self._settings.root, plain.message)
        except S2M3Error as error:
            self._refuse(plain, error)
            return
        plain.transaction = parsed.transaction
        publish = partial(self._answers.send_piece, plain)
        stream = PlainStream(plain.request, parsed.transaction, publish) if parsed.stream else None
        self._dispatcher.submit(
            self.task,
            parsed.inputs,
            parsed.deadline_s,
            partial(self._on_result, plain, parsed, stream),
            request=plain.request,
            traceparent=traceparent_of(plain.message.user),
            options=parsed.options,
            on_delta=stream.take if stream else None,
        )

    def _refuse(self, plain: OpenRequest, error: S2M3Error) -> None:
        plain.transaction = transaction_in(self._settings.root, plain.message.topic, plain.message.payload)
        self._finish(plain, encode_plain_error(error, request=plain.request, transaction=plain.transaction))

    def _on_result(self, plain: OpenRequest, parsed: PlainRequest, stream: PlainStream | None, result: Result) -> None:
        seq = stream.pieces_sent if stream is not None else None
        if result.error is not None:
            self._note_failure(result.request, result.error)
        plain.value = encode_plain_value(result.value) if result.error is None else None
        self._finish(plain, encode_result(result, transaction=parsed.transaction, seq=seq, ignored=parsed.ignored))

    def _note_failure(self, request: bytes, error: S2M3Error) -> None:
        name, detail = request.hex(), f"{error.code}: {error.detail}"
        _log.warning("request_failed", node=self._settings.node, task=self.task, request=name, error=str(error))
        self._publish_event(Event(event="request_failed", task=self.task, request=shown_id(request), detail=detail))

    def _finish(self, plain: OpenRequest, answer: bytes) -> None:
        plain.answer = answer
        if plain.link is not None:
            self._answers.send(plain)

    def _delivered(self, plain: OpenRequest) -> None:
        if plain.in_doubt and plain.link is None:  # sent at once to a broker that is back: its caller may not be
            plain.in_doubt, plain.sent, plain.was_acknowledged = False, False, True
            return
        self._lookout.ended(plain, answered=True)
        self._forget(plain)
        self._requeue.finished(plain)
        while self._waiting and len(self._plain) - len(self._waiting) < self._settings.plain_inflight:
            self._dispatch(self._waiting.popleft())
