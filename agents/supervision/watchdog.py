"""Watches what modules are at: marks it for the keeper, and tells when a call into one has no end."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from s2m3.agents.supervision.blackbox import LOADING, LOOP, WORKER, Blackbox
from s2m3.agents.supervision.restart_policy import CrashHistory
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["LOADING", "LOOP", "WORKER", "Watchdog"]

#: A call may take so many times the longest before it.
_TIMES_SLOWEST = 20.0
#: However long somebody is ready to wait: a hung module keeps all others from running.
_PATIENCE_S = 600.0
_LOAD_S = 1_800.0


@dataclass(slots=True)
class _Call:
    module: str
    began: float
    limit_s: float


class Watchdog:
    """What is under way in this process, and what is known of processes before it.

    Args:
        blackbox: Where to mark it.
        lessons: What the processes before this one died of.
        hang_s: No call is taken for hung before this.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        blackbox: Blackbox | None = None,
        crash_history: CrashHistory | None = None,
        hang_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._box = blackbox or Blackbox()
        self._crash_history = crash_history or CrashHistory()
        self._hang_s = hang_s
        self._clock = clock
        self._calls: dict[int, _Call] = {}
        self._slowest: dict[str, float] = {}

    @contextmanager
    def running(self, slot: int, module: str, requests: Collection[bytes], patience_s: float) -> Iterator[None]:
        """Around a call into a module.

        Args:
            slot: WORKER or LOOP, whichever thread this is.
            module: Which.
            requests: Whose work it is.
            patience_s: How long the most patient of them still waits.
        """
        slowest = self._slowest.get(module, 0.0)
        limit_s = max(self._hang_s, _TIMES_SLOWEST * slowest, min(patience_s, _PATIENCE_S))
        began = self._clock()
        self._calls[slot] = _Call(module, began, limit_s)
        self._box.begin(slot, module, requests)
        try:
            yield
        finally:
            self._box.end(slot)
            del self._calls[slot]
            self._slowest[module] = max(slowest, self._clock() - began)

    @contextmanager
    def loading(self, module: str) -> Iterator[None]:
        """Around the loading of a module."""
        self._calls[LOADING] = _Call(module, self._clock(), _LOAD_S)
        self._box.begin(LOADING, module)
        try:
            yield
        finally:
            self._box.end(LOADING)
            del self._calls[LOADING]

    def check(self) -> str | None:
        """Says that the loop turns; returns what hangs, if something does, and leaves it as the last word."""
        self._box.beat()
        now = self._clock()
        for slot, call in list(self._calls.items()):
            if now - call.began > call.limit_s:
                what = "loading" if slot == LOADING else "running"
                self._box.reason = f"{what} {call.module} has not ended after {now - call.began:.0f} s"
                return self._box.reason
        return None

    def refuse_poison(self, request: bytes) -> None:
        """Lets no request in that a process before this one did not survive.

        Raises:
            ModuleFailedError: It was being run, alone, when the process died.
        """
        why = self._crash_history.poison.get(request)
        if why is not None:
            raise ModuleFailedError(why)

    def is_suspected(self, request: bytes) -> bool:
        """Whether it was in a batch that the process did not survive, and is better run alone."""
        return request in self._crash_history.suspects
