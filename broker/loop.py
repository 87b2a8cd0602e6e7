"""One thread that runs a process's handlers and timers in turn, so that they need no locks. It does no I/O itself."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

import structlog

__all__ = ["Loop", "Timer"]

_log = structlog.get_logger(__name__)
_LONGEST_WAIT_S = 60.0


class Timer:
    """A call that is to come; `cancel` takes it back."""

    __slots__ = ("call", "cancelled", "every")

    def __init__(self, call: Callable[[], None], every: float | None) -> None:
        self.call = call
        self.every = every
        self.cancelled = False

    def cancel(self) -> None:
        """Takes the call back. Harmless when it has already been."""
        self.cancelled = True


class Loop:
    """Runs calls in the order they came, and timers when they are due.

    Args:
        name: Of the thread.
        bound: Calls that may wait from outside (`offer`) before whoever offers another has to wait. Calls that the
            process gives itself (`call`) are bounded by what they follow from, and never wait.
    """

    def __init__(self, name: str, bound: int = 10_000) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bound = bound
        self._room = threading.Event()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Runs what is queued now, then ends the thread. Returns when it has ended or the time is over."""
        self._stopping.set()
        self._queue.put(lambda: None)
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(timeout_s)

    def call(self, call: Callable[[], None]) -> None:
        """Queues a call, from any thread, without waiting."""
        self._queue.put(call)

    def offer(self, call: Callable[[], None]) -> None:
        """Queues a call from outside; waits while the queue is at its bound (TCP then holds the sender back)."""
        while self._queue.qsize() >= self._bound and not self._stopping.is_set():
            self._room.clear()
            self._room.wait(0.1)
        self._queue.put(call)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Runs a call once, later. From any thread."""
        return self._schedule(seconds, Timer(call, None))

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Runs a call again and again. From any thread."""
        return self._schedule(seconds, Timer(call, seconds))

    def _schedule(self, seconds: float, timer: Timer) -> Timer:
        due = time.monotonic() + seconds
        if threading.current_thread() is self._thread:
            heapq.heappush(self._timers, (due, next(self._order), timer))
        else:
            self._queue.put(lambda: heapq.heappush(self._timers, (due, next(self._order), timer)))
        return timer

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._queue.empty()):
            self._guarded(self._next_call())
            if self._queue.qsize() < self._bound:
                self._room.set()
            self._run_due()

    def _next_call(self) -> Callable[[], None]:
        wait = self._timers[0][0] - time.monotonic() if self._timers else _LONGEST_WAIT_S
        try:
            return self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
        except Empty:
            return _nothing

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.cancelled:
                continue
            if timer.every is not None:
                heapq.heappush(self._timers, (now + timer.every, next(self._order), timer))
            self._guarded(timer.call)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001  # the one broad except: a handler's bug must not end the service
            _log.exception("handler_failed", loop=self._thread.name)


def _nothing() -> None:
    return
