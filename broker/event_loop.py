"""One thread that serves a process's sockets, handlers and timers in turn, so that they need no locks.

Nothing that takes long runs here: modules run in the runner's thread, load in the loader's. What a handler does
(decode, join, forward) is short, and while it does it no more is read from the socket: TCP holds the sender back.
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
    """A call that is to come; `cancel` takes it back."""

    __slots__ = ("call", "cancelled", "every")

    def __init__(self, call: Callable[[], None], every: float | None) -> None:
        self.call = call
        self.every = every
        self.cancelled = False

    def cancel(self) -> None:
        """Takes the call back. Harmless when it has already been."""
        self.cancelled = True


@dataclass(frozen=True, slots=True)
class SocketHandlers:
    """What to call when a socket can be read or written."""

    readable: Callable[[], None]
    writable: Callable[[], None]


class Loop:
    """Runs calls in the order they came, sockets when they are ready, and timers when they are due.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._at_end: dict[Callable[[], None], None] = {}
        self._selector = selectors.DefaultSelector()
        self._bell = _Bell()
        self._selector.register(self._bell, _READ, SocketHandlers(self._woken_up, _nothing))
        self._woken = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Runs what is queued now, then ends the thread. Returns when it has ended or the time is over."""
        self.call(self._stop)
        if not self.is_current and self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the loop's thread."""
        return threading.current_thread() is self._thread

    def call(self, call: Callable[[], None]) -> None:
        """Queues a call, from any thread, without waiting."""
        self._calls.append(call)
        if not self._woken and not self.is_current:
            self._woken = True
            self._bell.ring()

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Runs a call once, later. From any thread."""
        return self._schedule(seconds, Timer(call, None))

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Runs a call again and again. From any thread."""
        return self._schedule(seconds, Timer(call, seconds))

    def at_end(self, call: Callable[[], None]) -> None:
        """Runs a call once after all that is to do now, however often it was asked for. In the loop's thread."""
        self._at_end[call] = None

    def watch(self, sock: socket.socket, watch: SocketHandlers) -> None:
        """Calls back when a socket is ready. In the loop's thread."""
        self.unwatch(sock)
        self._selector.register(sock, _READ, watch)

    def want_write(self, sock: socket.socket, wanted: bool) -> None:  # noqa: FBT001  # the one thing it says
        """Says whether there is something to write to a watched socket. In the loop's thread."""
        key = self._selector.get_map().get(sock)
        events = _READ | selectors.EVENT_WRITE if wanted else _READ
        if key is not None and key.events != events:
            self._selector.modify(sock, events, key.data)

    def unwatch(self, sock: socket.socket) -> None:
        """Forgets a socket, before it is closed. In the loop's thread."""
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
        self._bell.close()

    def _wait_s(self) -> float:
        if self._calls or self._at_end:
            return 0.0
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else _LONGEST_WAIT_S

    def _woken_up(self) -> None:
        self._bell.quiet()
        self._woken = False  # before the calls are run: one that comes now wakes us again

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


class _Bell:
    """Wakes a selector from another thread: an eventfd where there is one (Linux), which is cheaper than a socket."""

    def __init__(self) -> None:
        self._event: int | None = None
        self._ears: socket.socket | None = None
        self._hand: socket.socket | None = None
        if hasattr(os, "eventfd"):
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return
        self._ears, self._hand = socket.socketpair()
        for end in (self._ears, self._hand):
            end.setblocking(False)  # noqa: FBT003  # the socket's own signature

    def fileno(self) -> int:
        """What the selector watches."""
        if self._ears is not None:
            return self._ears.fileno()
        return -1 if self._event is None else self._event

    def ring(self) -> None:
        """Wakes whoever selects. Harmless when it is awake, or has ended."""
        try:
            if self._hand is not None:
                self._hand.send(b"\0")
            elif self._event is not None:
                os.eventfd_write(self._event, 1)
        except OSError:
            return

    def quiet(self) -> None:
        """Takes the rings in."""
        if self._ears is not None:
            self._ears.recv(4096)
        elif self._event is not None:
            os.eventfd_read(self._event)

    def close(self) -> None:
        """Ends it."""
        event, self._event = self._event, None
        for end in (self._ears, self._hand):
            if end is not None:
                end.close()
        if event is not None:
            os.close(event)


def _nothing() -> None:
    return
