"""The Python client: `Client().ask("retrieval", image=Path("cat.jpg"), text=["a cat", "a dog"])` returns an answer."""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from s2m3 import logs
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.python_inputs import in_words_of_python, with_files_read
from s2m3.schemas.errors import RequestTimeoutError, S2M3Error, UnauthorisedError, UnknownTaskError
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.near_names import no_such
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing

__all__ = ["Answer", "Client", "Reply", "Stream"]

logs.quiet_by_default()

#: Longest wait for the broker to deliver to our own inbox.
_GRACE_S = 5.0
R = TypeVar("R", bound="Reply")


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request.

    Args:
        value: The answer: the first of the model's outputs, e.g. the best label or the transcript.
        outputs: Output name -> value, for all outputs.
        latency_ms: Time from the request to its answer, milliseconds.
        route: Step -> node.
        steps: Step -> its timing.
        attempts: Number of times that the request was sent.
        request: The request id, 16 bytes.
        model: The model that answered.
        rank: Its place among the models of the task: 0 is the best, above that it is a stand-in.
    """

    value: Value
    outputs: Mapping[str, Value]
    latency_ms: float
    route: Mapping[str, str]
    steps: Mapping[str, Timing]
    attempts: int
    request: bytes
    model: str = ""
    rank: int = 0


class Reply(Future[Answer]):
    """A future answer: `result(timeout)` waits for it, and so does `await`. `cancel` cancels the request."""

    def __await__(self) -> Generator[Any, None, Answer]:
        return asyncio.wrap_future(self).__await__()


class Stream(Reply):
    """A reply whose text can be read while it is generated: iterate (`for` or `async for`), then call `result()`.

    Each item is a delta: normally it is appended to the text so far. Rarely its offset `at` is smaller than the length
    of the text so far; then it replaces the text after `at`. The text so far is always `part.after(text)`, and at the
    end it is the answer. Leaving a `with` block before the end cancels the request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: deque[TextDelta] = deque()
        self._lock = threading.Lock()
        self._more: Future[None] = _running()
        self.add_done_callback(lambda _: self._wake())

    def put(self, delta: TextDelta) -> None:
        """Adds a delta; only for the Client."""
        self._parts.append(delta)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            more, self._more = self._more, _running()
        more.set_result(None)

    def _ready(self) -> TextDelta | Future[None] | None:
        """Returns the next delta; a future that completes at the next change, if there is none yet; None at the end."""
        with self._lock:
            ended = self.done()
            if self._parts:
                return self._parts.popleft()
            if not ended:
                return self._more
        self.result()  # raises the request's error
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
    """Returns a future that a waiter cannot cancel, as several may wait for it."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


class Client:
    """A connection for requests. Threads may share one client.

    Args:
        host: Host of the broker; None for the settings (S2M3_HOST, …).
        port: Port of the broker; None for the settings.
        settings: All settings, instead of host and port.
        patient: Whether to keep trying for 10 s where nothing listens yet, as a service that may start before its
            broker does. By default that is an error at once.

    Raises:
        UnauthorisedError: The broker refused the login.
        BrokerUnreachableError: No broker answers at the address: at once where the connection is refused, the host has
            no address or no route leads there; where nothing comes back, after 10 s.

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
        patient: bool = False,
    ) -> None:
        settings = settings or BrokerSettings.load(host=host, port=port)
        unique = f"py-{secrets.token_hex(6)}"
        self._loop = Loop(unique)
        self._link = Link(settings, f"s2m3-client-{unique}", self._loop, on_ended=self._on_link_ended)
        self._dispatcher = Dispatcher(self._link, self._loop, settings.client or unique)
        self._open: set[Reply] = set()
        #: set once all routes are known; None before the first call of `tasks`
        self._listed: threading.Event | None = None
        self._listing = threading.Lock()
        self._loop.start()
        try:
            self._link.start(patient=patient)
            self._wait_for_inbox()
        except S2M3Error:
            self.close()
            raise

    def _wait_for_inbox(self) -> None:
        ready = threading.Event()
        self._dispatcher.start(on_ready=ready.set)
        if not self._link.wait_for(ready, _GRACE_S):
            raise RequestTimeoutError(
                f"nothing comes back from the broker within {_GRACE_S:g} s: it is overloaded, or we may not read"
            )

    def ask(
        self, task: str, *, deadline_s: float | None = None, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Answer:
        """Sends a request and waits for the answer.

        Args:
            task: Name of the task.
            deadline_s: Seconds until the request fails with RequestTimeoutError; None for the task's deadline.
            options: Generation options: max_tokens, stop, temperature, seed, timestamps; None for the task's, by
                default greedy. Of any task wait_s: seconds that the request waits for a machine that sleeps.
            **inputs: Input name -> value: texts as str or list, images and audio as bytes or Path, or lists of them.

        Raises:
            S2M3Error: The request failed; the subclass, `code` and `detail` say why, and where.
        """
        try:
            return self.submit(task, deadline_s=deadline_s, options=options, **inputs).result()
        except UnknownTaskError:
            if task in (known := self.tasks()):
                raise
            raise UnknownTaskError(no_such("task", task, known)) from None

    def submit(
        self, task: str, *, deadline_s: float | None = None, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Reply:
        """Sends a request and returns at once; arguments as for `ask`. The reply ends at the latest at the deadline.

        Raises:
            UnauthorisedError: The broker has revoked the login's rights.
        """
        return self._submit(Reply(), None, task, deadline_s, options, inputs)

    def stream(
        self, task: str, *, deadline_s: float | None = None, options: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Stream:
        """Sends a request and returns its text as it is generated; arguments as for `ask`.

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
        values = {name: with_files_read(value) for name, value in inputs.items() if value is not None}
        request = new_request_id()
        self._open.add(reply)
        reply.add_done_callback(lambda _: self._on_reply_done(reply, request))
        self._dispatcher.submit(
            task, values, deadline_s, self._on_result(reply), request=request, options=options, on_delta=on_delta
        )
        return reply

    def _on_reply_done(self, reply: Reply, request: bytes) -> None:
        self._open.discard(reply)
        if reply.cancelled():
            self._dispatcher.cancel(request)

    def _on_result(self, reply: Reply) -> Callable[[Result], None]:
        def done(result: Result) -> None:
            if reply.done() or not reply.set_running_or_notify_cancel():  # cancelled, or the link ended first
                return
            if result.error is not None:
                reply.set_exception(in_words_of_python(result.error))
                return
            reply.set_result(
                Answer(
                    value=result.value,
                    outputs={name: result.outputs[name] for name in result.answer if name in result.outputs},
                    latency_ms=result.latency_ms,
                    route=result.route,
                    steps=result.timings,
                    attempts=result.attempts,
                    request=result.request,
                    model=result.model,
                    rank=result.rank,
                )
            )

        return done

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused the login; None if it did not."""
        return self._link.refused

    @property
    def under_way(self) -> int:
        """Number of requests without an answer yet."""
        return self._dispatcher.under_way

    def tasks(self) -> dict[str, RouteDoc]:
        """Returns the tasks that the planner has published: name -> inputs, answer, steps and their ready copies.

        The first call subscribes to the routes of all tasks and waits until the retained ones have arrived.

        Raises:
            UnauthorisedError: The broker has revoked the login's rights.
        """
        with self._listing:
            if self._listed is None:
                self._listed = threading.Event()
                self._dispatcher.list_tasks(self._listed.set)
        self._link.wait_for(self._listed, _GRACE_S)
        return self._dispatcher.tasks()

    def knows(self, task: str) -> bool:
        """Returns whether there is a task, once its route has arrived, or all else that the broker retains.

        Of a task that was added this moment, the planner may not have published the route. Where the broker delivers
        nothing for 5 s, the answer is True: a request will tell.
        """
        found: Future[bool] = Future()
        self._dispatcher.find(task, found.set_result)
        try:
            return found.result(_GRACE_S)
        except TimeoutError:
            return True

    def close(self) -> None:
        """Disconnects; requests without an answer fail."""
        self._dispatcher.close()
        self._link.stop()
        self._loop.stop()
        self._fail_open(S2M3Error("the client was closed"))

    def _on_link_ended(self) -> None:
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
