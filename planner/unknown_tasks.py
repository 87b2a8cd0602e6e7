"""Answers plain requests to tasks that nobody has added: no task session receives them, so only the planner can."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from s2m3.broker import metrics
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, BusyError, S2M3Error, UnknownTaskError
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.plain import Transaction, encode_plain_error
from s2m3.schemas.wire.plain_topics import transaction_in
from s2m3.schemas.wire.reply_topics import check_reply_topic

__all__ = ["UnknownTasks"]

_log = structlog.get_logger(__name__)
#: Delay of an answer, seconds: the document of a new task arrives over another connection.
_GRACE_S = 2.0
#: Most requests that wait for their answer; further ones are not answered.
_MOST_WAITING = 1_000
#: Of larger requests only the beginning is kept, bytes.
_KEPT_BYTES = 1_000_000
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class _Asked:
    task: str
    reply_to: str | None
    correlation: bytes | None
    transaction: Transaction | None


class UnknownTasks:
    """Subscribes to all plain requests, at QoS 0, and answers those to unknown tasks; only the leader answers.

    The connection is its own: neither a large request nor a Response Topic that the broker refuses may end the
    planner's connection.

    Args:
        settings: Where the broker is.
        loop: The planner's event loop.
        cluster: The cluster state, with the desired tasks.
        leads: Whether this planner leads and knows all tasks.
        on_known: Called with the task of each request that is left to its gateway.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        loop: Loop,
        cluster: ClusterState,
        leads: Callable[[], bool],
        *,
        on_known: Callable[[str], object],
    ) -> None:
        self._root = settings.root
        self._loop = loop
        self._cluster = cluster
        self._leads, self._on_known = leads, on_known
        self._waiting = 0
        self._link = Link(settings, f"s2m3-unknown-{secrets.token_hex(6)}", loop, cut_over=_KEPT_BYTES)

    def start(self) -> None:
        """Subscribes to the request topics of all tasks."""
        for family in (topics.REQUEST, topics.REQUEST_INPUT, topics.REQUEST_TRANSACTION):
            # not required: the access list of an older release lacks a topic, and requests to known tasks go on
            self._link.subscribe(family.all(self._root), self._on_request, qos=0, required=False, retained=False)
        self._link.begin()

    def stop(self) -> None:
        """Disconnects."""
        self._link.stop()

    def _on_request(self, message: Message) -> None:
        task = message.topic.removeprefix(f"{self._root}/").split("/")[1]
        if message.retain or not (message.payload or message.oversize):
            return
        if task in self._cluster.tasks:
            self._on_known(task)
            return
        if self._waiting >= _MOST_WAITING:
            metrics.count_request("", BusyError.code, 0, 0.0)
            return
        transaction = transaction_in(self._root, message.topic, message.payload)
        self._waiting += 1
        asked = _Asked(task, message.reply_to, message.correlation, transaction)
        self._loop.after(_GRACE_S, partial(self._judge, asked))

    def _judge(self, asked: _Asked) -> None:
        self._waiting -= 1
        if asked.task in self._cluster.tasks or not self._leads():
            return
        request, error = new_request_id(), UnknownTaskError(self._unknown(asked.task[:_LONGEST_NAME]))
        metrics.count_request("", error.code, 0, _GRACE_S)
        _log.debug("unknown_task", task=asked.task, request=request.hex())
        payload = encode_plain_error(error, request=request, transaction=asked.transaction)
        if (reply_to := self._reply_topic(asked)) is None:
            self._answer_all(asked.task, payload)
        else:
            answer = Outgoing(reply_to, payload, correlation=asked.correlation)
            self._publish(answer, lambda _: self._answer_all(asked.task, payload))

    def _unknown(self, name: str) -> str:
        """Returns the text of the error; it names a task that differs only in capitals, blanks and underscores."""
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        return f"no task {name!r} is known" + (f"; did you mean {near!r}?" if near in self._cluster.tasks else "")

    def _reply_topic(self, asked: _Asked) -> str | None:
        """Returns the caller's Response Topic; None if it has none, or one that takes no errors."""
        try:
            topic = check_reply_topic(self._root, asked.task, asked.reply_to)
        except BadInputError:
            return None
        return None if topic is not None and topics.RESPONSE_VALUE.ids(self._root, topic) is not None else topic

    def _answer_all(self, task: str, payload: bytes) -> None:
        """Answers on the task's shared response topic; without v5 properties, for 3.1.1 clients (docs/protocol.md)."""
        if task and len(task) <= _LONGEST_NAME:
            self._publish(Outgoing(f"{self._root}/response/{task}", payload), _drop)

    def _publish(self, answer: Outgoing, on_refused: Callable[[S2M3Error], None]) -> None:
        try:
            self._link.publish(answer, on_refused=on_refused)
        except S2M3Error as error:  # the outgoing queue is full
            _log.warning("not_answered", topic=answer.topic, error=str(error))


def _drop(_: S2M3Error) -> None:
    """Leaves a request unanswered: the access list is of a release whose planner answered none."""
