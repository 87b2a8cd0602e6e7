"""An event loop: one thread runs a process's socket handlers, queued calls and timers in turn, so they need no locks.

Long work runs elsewhere: modules in the runner's thread, loads in the loader's. Handlers (decode, join, forward) are
short, and while one runs nothing is read from the sockets: TCP flow control slows the sender down.
"""

import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

__all__ = ["Loop", "SocketHandlers", "Timer"]

_log = structlog.get_logger(__name__)
_LONGEST_WAIT_S = 60.0
_READ = selectors.EVENT_READ


class Timer:
    """A scheduled call, once or periodic, that can be cancelled."""

    __slots__ = ("call", "cancelled", "every")

    def __init__(self, call: Callable[[], None], every: float | None) -> None:
        self.call = call
        self.every = every
        self.cancelled = False

    def cancel(self) -> None:
        """Cancels the call; no effect if a single call has already run."""
        self.cancelled = True


@dataclass(frozen=True, slots=True)
class SocketHandlers:
    """Callbacks for a socket that is ready to be read or written."""

    readable: Callable[[], None]
    writable: Callable[[], None]


class Loop:
    """Runs queued calls in order, socket handlers when their socket is ready, and timers when they are due.

    An exception from a handler is logged and the loop continues.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._at_end: dict[Callable[[], None], None] = {}
        self._selector = selectors.DefaultSelector()
        self._waker = _Waker()
        self._selector.register(self._waker, _READ, SocketHandlers(self._on_wake, _no_op))
        self._wake_pending = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Runs the calls queued so far, then ends the thread; waits up to `timeout_s` seconds unless called in it."""
        self.call(self._stop)
        if not self.is_current and self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the loop's thread."""
        return threading.current_thread() is self._thread

    def call(self, call: Callable[[], None]) -> None:
        """Queues a call, without blocking. Thread-safe."""
        self._calls.append(call)
        if not self._wake_pending and not self.is_current:
            self._wake_pending = True
            self._waker.wake()

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Runs a call once after some seconds. Thread-safe."""
        return self._schedule(seconds, Timer(call, None))

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Runs a call periodically, each so many seconds. Thread-safe."""
        return self._schedule(seconds, Timer(call, seconds))

    def at_end(self, call: Callable[[], None]) -> None:
        """Runs a call once at the end of the current iteration, even if requested repeatedly. In the loop's thread."""
        self._at_end[call] = None

    def watch(self, sock: socket.socket, watch: SocketHandlers) -> None:
        """Registers a socket's handlers, replacing earlier ones. In the loop's thread."""
        self.unwatch(sock)
        self._selector.register(sock, _READ, watch)

    def want_write(self, sock: socket.socket, wanted: bool) -> None:  # noqa: FBT001  # the method's one argument
        """Sets whether `writable` is called for a registered socket. In the loop's thread."""
        key = self._selector.get_map().get(sock)
        events = _READ | selectors.EVENT_WRITE if wanted else _READ
        if key is not None and key.events != events:
            self._selector.modify(sock, events, key.data)

    def unwatch(self, sock: socket.socket) -> None:
        """Unregisters a socket; to be called before the socket is closed. In the loop's thread."""
        watched = self._selector.get_map()  # None once the loop has ended
        if sock.fileno() >= 0 and watched is not None and sock in watched:
            self._selector.unregister(sock)

    def _schedule(self, seconds: float, timer: Timer) -> Timer:
        entry = (time.monotonic() + seconds, next(self._order), timer)
        if self.is_current:
            heapq.heappush(self._timers, entry)
        else:
            self.call(lambda: heapq.heappush(self._timers, entry))
        return timer

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select(self._wait_s()):
                if events & _READ:
                    self._guarded(key.data.readable)
                if events & selectors.EVENT_WRITE and key.fd in self._selector.get_map():
                    self._guarded(key.data.writable)
            for _ in range(len(self._calls)):
                self._guarded(self._calls.popleft())
            self._run_due()
            at_end, self._at_end = self._at_end, {}
            for call in at_end:
                self._guarded(call)
        self._selector.close()
        self._waker.close()

    def _wait_s(self) -> float:
        if self._calls or self._at_end:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else _LONGEST_WAIT_S

    def _on_wake(self) -> None:
        self._waker.drain()
        self._wake_pending = False  # before the calls run, so that a call queued from now on wakes the selector again

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

    def _stop(self) -> None:
        self._stopping = True


class _Waker:
    """Wakes the selector from another thread, by an eventfd (Linux) or, more expensively, a socket pair."""

    def __init__(self) -> None:
        self._eventfd: int | None = None
        self._receiver: socket.socket | None = None
        self._sender: socket.socket | None = None
        if hasattr(os, "eventfd"):
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return
        self._receiver, self._sender = socket.socketpair()
        for end in (self._receiver, self._sender):
            end.setblocking(False)  # noqa: FBT003  # the socket's own signature

    def fileno(self) -> int:
        """Returns the file descriptor that the selector watches."""
        if self._receiver is not None:
            return self._receiver.fileno()
        return -1 if self._eventfd is None else self._eventfd

    def wake(self) -> None:
        """Wakes the selector; no effect if the selector is awake or closed."""
        try:
            if self._sender is not None:
                self._sender.send(b"\0")
            elif self._eventfd is not None:
                os.eventfd_write(self._eventfd, 1)
        except OSError:
            return

    def drain(self) -> None:
        """Reads and discards pending wake-ups."""
        if self._receiver is not None:
            self._receiver.recv(4096)
        elif self._eventfd is not None:
            os.eventfd_read(self._eventfd)

    def close(self) -> None:
        """Closes the file descriptors."""
        event, self._eventfd = self._eventfd, None
        for end in (self._receiver, self._sender):
            if end is not None:
                end.close()
        if event is not None:
            os.close(event)


def _no_op() -> None:
    return
