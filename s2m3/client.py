"""Ask a task a question from Python: `Client().ask("retrieval", image=Path("cat.jpg"), text=["a cat", "a dog"])`."""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.schemas.errors import RequestTimeoutError, S2M3Error
from s2m3.schemas.ids import new_request_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing

__all__ = ["Answer", "Client", "Reply", "Stream"]

#: The dispatcher ends every request at its deadline; this much later the caller stops waiting whatever happened.
_GRACE_S = 5.0
R = TypeVar("R", bound="Reply")


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's result.

    Args:
        value: The answer itself: the first of the model's outputs, e.g. the best label or the transcript.
        outputs: All outputs by name.
        latency_ms: From asking to having the answer.
        route: Step -> node.
        steps: Step -> what it took there.
        attempts: 1, and one more each time it was sent again.
        request: Its id.
    """

    value: Value
    outputs: Mapping[str, Value]
    latency_ms: float
    route: Mapping[str, str]
    steps: Mapping[str, Timing]
    attempts: int
    request: bytes


class Reply(Future[Answer]):
    """An answer that is to come: `result(timeout)` waits for it, and so does `await`. `cancel` ends the work for it."""

    def __await__(self) -> Generator[Any, None, Answer]:
        return asyncio.wrap_future(self).__await__()


class Stream(Reply):
    """A reply whose text can be read while it is written: iterate (`for` or `async for`), then take `result()`.

    Each item is a part of the text: show it behind what there is so far. In the rare case that `at` is less than the
    length of that, it replaces what is behind `at`: the text so far is always `part.after(text)`, and in the end it is
    the answer. Leaving a `with` block early ends the work for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: deque[TextDelta] = deque()
        self._lock = threading.Lock()
        self._more: Future[None] = _running()
        self.add_done_callback(lambda _: self._wake())

    def put(self, shown: TextDelta) -> None:
        """Takes a part in; the Client's to call."""
        self._parts.append(shown)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            more, self._more = self._more, _running()
        more.set_result(None)

    def _ready(self) -> TextDelta | Future[None] | None:
        """The next part; what to wait for where there is none yet; None at the end."""
        with self._lock:
            ended = self.done()
            if self._parts:
                return self._parts.popleft()
            if not ended:
                return self._more
        self.result()  # raises what the request failed with
        return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TextDelta:
        while isinstance(found := self._ready(), Future):
            found.result()
        if found is None:
            raise StopIteration
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TextDelta:
        while isinstance(found := self._ready(), Future):
            await asyncio.wrap_future(found)
        if found is None:
            raise StopAsyncIteration
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


def _running() -> Future[None]:
    """A future that whoever waits for it cannot cancel: several may."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


class Client:
    """A connection that asks. Threads may share one.

    Args:
        host: Of the broker; default: settings (S2M3_HOST, …).
        port: Of the broker.
        settings: All of them, instead of host and port.
        patient: Whether a broker that is not there is waited for, 10 s; False: that is an error at once.

    Raises:
        UnauthorisedError: The broker refused the login.
        S2M3Error: There is no broker.

    Example:
        >>> with Client() as client:
        ...     print(client.ask("retrieval", image=Path("cat.jpg"), text=["a cat", "a dog"]).value)
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        settings: BrokerSettings | None = None,
        patient: bool = True,
    ) -> None:
        settings = settings or BrokerSettings.load(host=host, port=port)
        unique = f"py-{secrets.token_hex(6)}"
        self._loop = Loop(unique)
        self._link = Link(settings, f"s2m3-client-{unique}", self._loop, on_ended=self._link_ended)
        self._dispatcher = Dispatcher(self._link, self._loop, settings.client or unique)
        self._open: set[Reply] = set()
        self._loop.start()
        try:
            self._link.start(patient=patient)
            self._wait_until_answers_come()
        except S2M3Error:
            self.close()
            raise

    def _wait_until_answers_come(self) -> None:
        ready = threading.Event()
        self._dispatcher.start(on_ready=ready.set)
        if not self._link.wait_for(ready, _GRACE_S):
            raise RequestTimeoutError(
                f"nothing comes back from the broker within {_GRACE_S:g} s: it is overloaded, or we may not read"
            )

    def ask(
        self, task: str, *, deadline_s: float | None = None, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Answer:
        """Asks and waits.

        Args:
            task: Name of the task.
            deadline_s: Seconds to wait at most; default: the task's own.
            options: How text is to be written: max_tokens, stop, temperature, seed; default: the task's own, greedy.
            **inputs: By the task's names: texts as str or list, pictures and sound as bytes or Path, or lists of them.

        Raises:
            S2M3Error: One of its subclasses, by code: what was wrong, and where.
        """
        return self.submit(task, deadline_s=deadline_s, options=options, **inputs).result()

    def submit(
        self, task: str, *, deadline_s: float | None = None, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Reply:
        """Asks without waiting; see `ask`. The reply ends by itself at the deadline.

        Raises:
            UnauthorisedError: The broker has taken our rights away.
        """
        return self._submit(Reply(), None, task, deadline_s, options, inputs)

    def stream(
        self, task: str, *, deadline_s: float | None = None, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Stream:
        """Asks for a text and returns it as it is written; see `ask`.

        Example:
            >>> with client.stream("transcription", audio=Path("hello.flac")) as words:
            ...     for part in words:
            ...         print(part, end="", flush=True)
            ...     print(words.result().latency_ms)
        """
        stream = Stream()
        return self._submit(stream, stream.put, task, deadline_s, options, inputs)

    def _submit(
        self,
        reply: R,
        on_delta: Callable[[TextDelta], None] | None,
        task: str,
        deadline_s: float | None,
        options: Mapping[str, Any] | None,
        inputs: Mapping[str, Any],
    ) -> R:
        if self._link.refused is not None:
            raise self._link.refused
        values = {name: _read(value) for name, value in inputs.items() if value is not None}
        request = new_request_id()
        self._open.add(reply)
        reply.add_done_callback(lambda _: self._ended(reply, request))
        self._dispatcher.submit(
            task, values, deadline_s, self._settle(reply), request=request, options=options, on_delta=on_delta
        )
        return reply

    def _ended(self, reply: Reply, request: bytes) -> None:
        self._open.discard(reply)
        if reply.cancelled():
            self._dispatcher.cancel(request)

    def _settle(self, reply: Reply) -> Callable[[Result], None]:
        def done(result: Result) -> None:
            if reply.done() or not reply.set_running_or_notify_cancel():  # cancelled, or the link ended first
                return
            if result.error is not None:
                reply.set_exception(result.error)
                return
            reply.set_result(
                Answer(
                    value=result.outputs.get(result.answer[0]),
                    outputs={name: result.outputs[name] for name in result.answer if name in result.outputs},
                    latency_ms=result.latency_ms,
                    route=result.route,
                    steps=result.timings,
                    attempts=result.attempts,
                    request=result.request,
                )
            )

        return done

    def close(self) -> None:
        """Disconnects; what is still open fails."""
        self._dispatcher.close()
        self._link.stop()
        self._loop.stop()
        self._fail_open(S2M3Error("the client was closed"))

    def _link_ended(self) -> None:
        self._dispatcher.close()
        self._fail_open(self._link.refused or S2M3Error("the connection to the broker ended"))

    def _fail_open(self, error: S2M3Error) -> None:
        while self._open:
            reply = self._open.pop()
            if not reply.done() and reply.set_running_or_notify_cancel():
                reply.set_exception(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(value: Any) -> Value:
    """Reads files; leaves everything else to the checks against what the task takes."""
    if isinstance(value, Path):
        return value.read_bytes()
    if isinstance(value, list | tuple):
        return [_read(item) for item in value]
    return value
