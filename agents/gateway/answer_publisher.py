"""Publishes the answers of one task's plain requests, where each caller wants them. Takes no requests."""

from collections.abc import Callable
from functools import partial

import structlog

from s2m3.agents.gateway.open_request import OpenRequest
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.mqtt.outbox import Refused
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error, TooLargeError
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.plain import encode_plain_error

__all__ = ["LONGEST_VALUE", "AnswerPublisher"]

_log = structlog.get_logger(__name__)
#: Largest answer that is published alone too, bytes: it is for devices with little memory.
LONGEST_VALUE = 4_096
#: Delay before the error that replaces an unsendable answer is published, seconds.
_AGAIN_S = 0.5


class AnswerPublisher:
    """Publishes the answers of one task.

    Args:
        task: The task's name.
        settings: The agent's settings.
        loop: The agent's event loop.
        link: The agent's link. The session's link would block: while rumqttd waits for the acknowledgement of as many
            requests as it allows, it sends no PUBACK on the same connection.
        links: Returns the connections for a request's answer: each is tried while nobody hears it on those before.
        on_delivered: Called with a request when the broker has its answer.
        on_failure: Called with a request id and the error if the broker does not let us answer at the caller's topic.
    """

    def __init__(
        self,
        task: str,
        settings: AgentSettings,
        loop: Loop,
        link: Link,
        links: Callable[[OpenRequest], list[Link]],
        *,
        on_delivered: Callable[[OpenRequest], None],
        on_failure: Callable[[bytes, S2M3Error], None],
    ) -> None:
        self._task = task
        self._node = settings.node
        self._loop = loop
        self._link = link
        self._on_delivered = on_delivered
        self._on_failure = on_failure
        self._links = links
        self._response = topics.RESPONSE.at(settings.root, task=task)
        self._value = topics.RESPONSE_VALUE.at(settings.root, task=task)

    @property
    def is_connected(self) -> bool:
        """Whether answers can be published now."""
        return self._link.connected

    def send(self, plain: OpenRequest) -> None:
        """Publishes the answer of a request once; an error in its place if it cannot be sent."""
        if plain.answer is None or plain.sent or plain.closed:
            return
        try:
            self._publish(plain)
            plain.sent = True
        except S2M3Error as error:
            name = plain.request.hex()
            _log.warning("answer_unsent", node=self._node, task=self._task, request=name, error=str(error))
            self._replace(plain, error)
            self._loop.after(_AGAIN_S, partial(self.send, plain))

    def send_piece(self, plain: OpenRequest, payload: bytes) -> bool:
        """Publishes a piece of streamed text unless the outgoing queue is long: the answer contains all text."""
        link = self._links(plain)[0]
        if not link.has_room or plain.reply_to == self._value:
            return False
        # a refusal of the answer is handled
        link.publish(self._addressed(plain, payload), on_refused=lambda _: None)
        return True

    def _publish(self, plain: OpenRequest) -> None:
        """Publishes the value first: the broker has it when it acknowledges the answer, which follows on the link."""
        answer, value, links = plain.answer or b"", plain.value, self._links(plain)
        publish = partial(
            _publish_on,
            links,
            on_delivered=partial(self._on_delivered, plain),
            on_refused=partial(self._may_not_answer, plain) if plain.reply_to else None,
            on_dropped=partial(self._dropped, plain),
        )
        if plain.reply_to == self._value and value is not None:
            if len(value) > LONGEST_VALUE:
                text = f"an answer of {len(value)} bytes is over the {LONGEST_VALUE} that are sent alone"
                raise TooLargeError(text, size=len(value), limit=LONGEST_VALUE)
            publish(Outgoing(self._value, value))
            return
        if not plain.reply_to and value is not None and len(value) <= LONGEST_VALUE:
            # an access list of a release that has no such topic refuses it: the answer itself follows
            _publish_on(links, Outgoing(self._value, value), on_refused=lambda _: None)
        publish(self._addressed(plain, answer))

    def _addressed(self, plain: OpenRequest, payload: bytes) -> Outgoing:
        if plain.reply_to and plain.reply_to != self._value:
            return Outgoing(plain.reply_to, payload, correlation=plain.message.correlation)
        # no v5 properties, as 3.1.1 clients may subscribe to this topic (docs/protocol.md)
        return Outgoing(self._response, payload)

    def _may_not_answer(self, plain: OpenRequest, error: S2M3Error) -> None:
        """Answers with an error on the task's shared response topic: we cannot publish to the caller's topic."""
        error.node = self._node
        self._on_failure(plain.request, error)
        plain.reply_to, plain.sent = None, False
        self._replace(plain, error)
        self.send(plain)

    def _dropped(self, plain: OpenRequest, error: S2M3Error) -> None:
        """Replaces an answer over which every connection is lost by an error; if it is the error, ends the request."""
        if plain.closed:  # the next gateway has the request
            return
        if plain.was_dropped:
            self._on_delivered(plain)
        else:
            plain.was_dropped = True
            self._may_not_answer(plain, error)

    def _replace(self, plain: OpenRequest, error: S2M3Error) -> None:
        plain.answer = encode_plain_error(error, request=plain.request, transaction=plain.transaction)
        plain.value = None


def _publish_on(
    links: list[Link],
    message: Outgoing,
    *,
    on_delivered: Callable[[], object] = lambda: None,
    on_refused: Refused | None,
    on_dropped: Refused | None = None,
) -> None:
    """Publishes a message on the first link, and on the next one if nobody is subscribed there.

    Raises:
        S2M3Error: The message cannot be sent on the first link.
    """
    link, *others = links

    def nobody_there() -> None:
        try:
            _publish_on(others, message, on_delivered=on_delivered, on_refused=on_refused, on_dropped=on_dropped)
        except S2M3Error as error:
            _log.debug("answer_not_repeated", topic=message.topic, error=str(error))
            on_delivered()

    link.publish(
        message,
        on_delivered=on_delivered,
        on_no_subscribers=nobody_there if others else None,
        on_refused=on_refused,
        on_dropped=on_dropped,
    )
