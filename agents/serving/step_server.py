"""The data plane of an agent: receives work, joins inputs, runs modules, and sends the outputs to the next steps."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import structlog

from s2m3.agents.serving.input_pieces import InputPieces
from s2m3.agents.serving.joins import Joins
from s2m3.agents.serving.module import Module
from s2m3.agents.serving.payloads import PayloadRoom, payload_bytes
from s2m3.agents.serving.rounding import rounded, with_rounded
from s2m3.agents.serving.runner import Runner
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker import tracing
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.work_messages import send_work
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.ids import is_id
from s2m3.schemas.request_ids import REQUEST_ID_BYTES
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.codec import (
    CONTENT_TYPE,
    attempt_of,
    decode_work,
    encode_answer,
    encode_piece,
    is_stop,
)
from s2m3.schemas.wire.generation import Piece
from s2m3.schemas.wire.input_pieces import decode_input_piece, is_input_piece
from s2m3.schemas.wire.notices import encode_working
from s2m3.schemas.wire.reply_topics import is_client_inbox
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Timing, Work, following

__all__ = ["StepServer"]

_log = structlog.get_logger(__name__)
_EXPIRE_S, _WORKING_S = 0.1, 1.0
#: Most finished requests that are kept between two reports of the load.
_FINISHED = 100_000
#: Longest time for which further work of a stopped request is dropped.
_STOPPED_S = 600.0
#: Parts of the memory budget: outputs that are remembered by content, items that are prepared ahead of the worker, and
#: inputs that come in pieces.
_REMEMBERED, _AHEAD, _IN_PIECES = 1 / 64, 1 / 16, 1 / 32


class StepServer:
    """Serves modules on their topics. Outputs for a step on this node do not pass through the broker.

    Args:
        settings: The agent's settings.
        link: The agent's connection.
        loop: The agent's event loop; everything but the modules' calls happens in its thread.
        watchdog: Watches the modules' calls.
        room: The memory for payloads that wait.
        preparing: Number of threads that prepare inputs beside the worker.
    """

    def __init__(
        self,
        settings: AgentSettings,
        link: Link,
        loop: Loop,
        watchdog: Watchdog,
        room: PayloadRoom,
        *,
        preparing: int,
    ) -> None:
        self._node = settings.node
        self._root = settings.root
        self._link = link
        self._loop = loop
        self._finished: deque[tuple[str, Mapping[str, Timing]]] = deque(maxlen=_FINISHED)
        self._joins = Joins(settings.joins, self._node)
        self.runner = Runner(
            self._node,
            settings.queue,
            self._done,
            self._answer_error,
            self._send_piece,
            watchdog=watchdog,
            preparing=preparing,
            remembered_bytes=room.part_of_budget(_REMEMBERED),
            ahead_bytes=room.part_of_budget(_AHEAD),
        )

        self._room = room
        self._pieces = InputPieces(room.part_of_budget(_IN_PIECES), self._node)
        room.count("pieces", self._pieces.waiting_bytes)
        room.count("joins", self._joins.waiting_bytes)
        room.count("runner", self.runner.waiting_bytes)
        room.count("outgoing", lambda: 2 * link.outgoing_bytes)  # the connection keeps each once more, as a packet

    def start(self) -> None:
        """Starts the worker thread."""
        self.runner.start()
        self._loop.every(_EXPIRE_S, self._expire)
        self._loop.every(_WORKING_S, self._tell_working)

    def serve(self, module_id: str, module: Module, on_subscribed: Callable[[], None]) -> None:
        """Accepts work for a loaded module; `on_subscribed` is called once the broker has confirmed its topic."""
        self.runner.add(module_id, module)
        self._link.subscribe(self._topic(module_id), self._on_work, on_subscribed=on_subscribed)

    def leave(self, module_id: str, on_left: Callable[[], None]) -> None:
        """Accepts no more work for a module; `on_left` is called in the loop's thread once its queue is empty."""
        self._link.unsubscribe(self._topic(module_id))
        self.runner.remove(module_id, partial(self._loop.call, on_left))

    def take_finished(self) -> tuple[Counter[str], dict[str, Mapping[str, Timing]]]:
        """Returns task -> requests finished here since the last call, and task -> timings of the last of them."""
        taken = [self._finished.popleft() for _ in range(len(self._finished))]
        return Counter(task for task, _ in taken), dict(taken)

    def _topic(self, module_id: str) -> str:
        return topics.MODULE_IN.at(self._root, module=module_id, node=self._node)

    # ---- incoming messages (the loop's thread) --------------------------------------------------------------------

    def _on_work(self, message: Message) -> None:
        if is_stop(message.user):
            self._on_stop(message)
            return
        if is_input_piece(message.user):
            self._on_input_piece(message)
            return
        reply_to = message.reply_to
        if reply_to is None or not is_client_inbox(self._root, reply_to):
            _log.warning("bad_work", node=self._node, topic=message.topic, error="no client's inbox to answer to")
            return
        try:
            work = with_rounded(
                decode_work(
                    message.payload,
                    request=message.correlation,
                    reply_to=reply_to,
                    user=message.user,
                    expiry_s=message.expiry_s,
                    content_type=message.content_type,
                    properties=message.user_properties,
                )
            )
            work = self._pieces.whole(work, time.monotonic())
        except S2M3Error as error:
            self._answer_undecoded(message, reply_to, error)
            return
        refusal = self._room.refusal(payload_bytes(work.inputs))
        if refusal is None:
            self._accept(work)
        else:
            refusal.step, refusal.node = work.step, self._node
            self._answer_error(work, refusal)

    def _on_stop(self, message: Message) -> None:
        request, step = message.correlation, message.user.get("step", "")
        if request is None or len(request) != REQUEST_ID_BYTES or not is_id(step):
            _log.warning("bad_work", node=self._node, topic=message.topic, error="a stop without request id or step")
            return
        attempt = attempt_of(message.user)
        remembered_s = min(float(message.expiry_s or 0), _STOPPED_S)
        self._joins.cancel(request, step, attempt, time.monotonic() + remembered_s)
        self.runner.drop(request, step, attempt)

    def _on_input_piece(self, message: Message) -> None:
        try:
            piece = decode_input_piece(message.payload, stream=message.correlation, user=message.user)
        except S2M3Error as error:
            _log.warning("bad_work", node=self._node, topic=message.topic, error=str(error))
            return
        self._pieces.put(piece, time.monotonic())

    def _accept(self, work: Work) -> None:
        now = time.monotonic()
        try:
            complete = self._joins.add(work, now)
            if complete is not None:
                self.runner.submit(complete, now)
        except S2M3Error as error:
            self._answer_error(work, error)

    def _expire(self) -> None:
        self._pieces.expire(time.monotonic())
        for late in self._joins.expire(time.monotonic()):
            self._answer_error(late.work, late.error)

    def _tell_working(self) -> None:
        """Notifies requesters that their long works are under way, so that they send them to no second node."""
        for work in self.runner.working():
            if not self._link.has_room:
                return
            notice = Outgoing(work.reply_to, b"", qos=0, correlation=work.request, user=encode_working(work))
            self._link.publish(notice, on_refused=lambda _: None)  # a refusal of the answer will be logged

    # ---- outgoing messages (the worker's thread, or the loop's) ---------------------------------------------------

    def _done(self, work: Work, outputs: Mapping[str, Value], timing: Timing, ms_left: float) -> None:
        tracing.record_step(work, self._node, timing, None)
        timings = {**work.timings, work.step: timing}
        next_steps = following(work.route, work.step)
        if not next_steps:
            self._finished.append((work.task, timings))
            self._answer(work, Answer(work.request, work.step, work.attempt, outputs, timings))
        for step, taken in next_steps.items():
            inputs = {port: outputs[output] for port, output in taken.items()}
            branch = replace(work, step=step, inputs=inputs, ms_left=ms_left, timings=timings, rounded=frozenset())
            self._forward(branch, work.hop.tolerance)

    def _send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        """Sends a piece of streamed text unless the outgoing queue is long: pieces are optional, the answer has all."""
        if not self._link.has_room:
            return False
        payload, user = encode_piece(Piece(work.request, work.step, work.attempt, seq, at, text))
        try:
            self._link.publish(
                Outgoing(work.reply_to, payload, correlation=work.request, content_type=CONTENT_TYPE, user=user),
                on_refused=lambda _: None,  # a refusal of the answer will be logged
            )
        except S2M3Error as error:
            _log.debug("piece_unsent", node=self._node, request=work.request.hex(), error=str(error))
            return False
        return True

    def _forward(self, branch: Work, tolerance: float) -> None:
        if branch.hop.node == self._node:
            self._loop.call(partial(self._accept, branch))
            return
        try:
            smaller = replace(branch, inputs=rounded(branch.inputs, tolerance))
            send_work(self._link, smaller, partial(self._answer_error, branch))
        except S2M3Error as error:
            error.step, error.node = error.step or branch.step, error.node or self._node
            self._answer_error(branch, error)

    def _answer_error(self, work: Work, error: S2M3Error) -> None:
        tracing.record_step(work, self._node, None, error)
        self._answer(work, Answer(work.request, work.step, work.attempt, error=error))

    def _answer(self, work: Work, answer: Answer) -> None:
        if answer.error is not None:
            _log.info(
                "step_failed",
                node=self._node,
                task=work.task,
                request=work.request.hex(),
                step=work.step,
                error=str(answer.error),
            )
        self._publish_answer(work.reply_to, answer)

    def _answer_undecoded(self, message: Message, reply_to: str, error: S2M3Error) -> None:
        """Answers a message that cannot be decoded, if it at least has a request id."""
        _log.info("bad_work", node=self._node, topic=message.topic, error=str(error))
        request = message.correlation
        if request is None or len(request) != REQUEST_ID_BYTES:
            return
        error.node = error.node or self._node
        step = message.user.get("step", "")[:64]
        self._publish_answer(reply_to, Answer(request, step, attempt_of(message.user), error=error))

    def _publish_answer(self, reply_to: str, answer: Answer) -> None:
        try:
            payload, user = encode_answer(answer)
            message = Outgoing(reply_to, payload, correlation=answer.request, content_type=CONTENT_TYPE, user=user)
            self._link.publish(message, on_refused=partial(self._on_refused, answer))
        except S2M3Error as error:
            _log.warning("answer_unsent", node=self._node, request=answer.request.hex(), error=str(error))
            if answer.error is None:
                error.node = self._node
                self._publish_answer(reply_to, Answer(answer.request, answer.step, answer.attempt, error=error))

    def _on_refused(self, answer: Answer, refused: S2M3Error) -> None:
        """Logs that we may not publish to the requester's inbox; without a callback the refusal would end the link."""
        _log.warning("answer_refused", node=self._node, request=answer.request.hex(), error=refused.detail)
