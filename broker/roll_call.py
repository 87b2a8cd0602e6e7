"""Roll calls on a connection: asking all owners of retained documents to publish them again, and answering."""

import random
import time
from collections.abc import Callable

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.roll_call_times import AnswerTimes
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.messages import RollCall

__all__ = ["answer_roll_calls", "ask_who_is_there"]

_log = structlog.get_logger(__name__)


def ask_who_is_there(link: Link, asker: str, on_refused: Callable[[S2M3Error], None] = lambda _: None) -> None:
    """Asks every owner of retained documents to publish them again.

    Args:
        link: The connection.
        asker: The name of this process, for people who read the message.
        on_refused: Called if the login has no right to ask.
    """
    try:
        message = Outgoing(topics.ROLLCALL.at(link.root), RollCall(asker=asker).encode())
        link.publish(message, on_refused=on_refused)
    except S2M3Error as error:
        _log.debug("roll_call_unsent", error=str(error))


def answer_roll_calls(link: Link, loop: Loop, publish_all: Callable[[], None], *, asker: str | None = None) -> None:
    """Answers roll calls from now on.

    Args:
        link: The connection. If an access list from before roll calls denies the subscription, none are answered.
        loop: The event loop that runs the link's handlers.
        publish_all: Publishes all retained documents of this process; called in the loop's thread.
        asker: The name under which this process asks for roll calls itself, so that it does not answer its own.
    """
    times = AnswerTimes()

    def answer() -> None:
        if times.take_due(time.monotonic()):
            publish_all()

    def on_roll_call(message: Message) -> None:
        if message.retain or (asker is not None and _asker_of(message) == asker):
            return
        delay_s = times.asked(time.monotonic(), random.random())  # noqa: S311  # spreads answers, keeps no secret
        if delay_s is not None:
            loop.after(delay_s, answer)

    link.subscribe(topics.ROLLCALL.all(link.root), on_roll_call, required=False)


def _asker_of(message: Message) -> str | None:
    """Returns the asker's name; None if the message has none: any message on the topic is a roll call."""
    try:
        return topics.ROLLCALL.decode(message.payload).asker
    except BadInputError:
        return None
