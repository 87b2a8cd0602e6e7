"""The watchdog: marks calls into modules for the supervisor, and detects calls that hang."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from s2m3.agents.supervision.blackbox import LOADING, LOOP, PREPARING, WORKER, Blackbox
from s2m3.agents.supervision.restart_policy import CrashHistory
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.request_ids import content_of

__all__ = ["LOADING", "LOOP", "PREPARING", "WORKER", "Call", "Watchdog"]

#: A call hangs only if it takes longer than this factor times the module's longest call so far.
_TIMES_SLOWEST = 20.0
#: Upper limit of the time that a request's deadline allows a call: a hung module blocks all others.
_PATIENCE_S = 600.0
#: Time limit of a load.
_LOAD_S = 1_800.0


@dataclass(slots=True)
class Call:
    """A call into a module.

    Args:
        module: The module's id.
        began: Monotonic seconds.
        limit_s: Seconds without progress after which it hangs.
        usual_s: Seconds without progress that are nothing unusual for the module.
        progressed: When it began, or when its last slice ended (agents/modules/slices.py).
    """

    module: str
    began: float
    limit_s: float
    usual_s: float
    progressed: float


class Watchdog:
    """The calls in progress in this process, and the poison requests of earlier processes.

    Args:
        blackbox: The crash record to mark calls in; None for a private one.
        crash_history: The crashes of earlier processes; None for none.
        hang_s: Least duration of a call that counts as hung, seconds.
        clock: Returns monotonic seconds.
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
        self._calls: dict[int, Call] = {}
        self._slowest: dict[str, float] = {}
        self._allowed: dict[str, float] = {}

    @contextmanager
    def running(self, slot: int, module: str, requests: Collection[bytes], patience_s: float) -> Iterator[Call]:
        """Context of a call into a module: marks it, and sets its time limit; the target is the call.

        Args:
            slot: WORKER, LOOP or one of PREPARING, the thread of the call.
            module: The module's id.
            requests: Ids of the requests in the batch.
            patience_s: Time until the latest deadline of these requests, seconds.
        """
        usual_s = self._usual_s(module)
        began = self._clock()
        call = Call(module, began, max(usual_s, min(patience_s, _PATIENCE_S)), usual_s, began)
        self._calls[slot] = call
        self._box.begin(slot, module, requests)
        try:
            yield call
        finally:
            self._box.end(slot)
            del self._calls[slot]
            self._slowest[module] = max(self._slowest.get(module, 0.0), self._clock() - began)

    @contextmanager
    def loading(self, module: str) -> Iterator[None]:
        """Context of the load of a module: marks it, and sets its time limit."""
        began = self._clock()
        self._calls[LOADING] = Call(module, began, _LOAD_S, _LOAD_S, began)
        self._box.begin(LOADING, module)
        try:
            yield
        finally:
            self._box.end(LOADING)
            del self._calls[LOADING]

    def allow(self, module: str, seconds: float) -> None:
        """Takes it that so long a call into a module is nothing unusual: its weights come from a disk."""
        self._allowed[module] = seconds

    def check(self) -> str | None:
        """Beats for the event loop; returns the reason if a call hangs, after writing it to the crash record."""
        self._box.beat()
        now = self._clock()
        for slot, call in list(self._calls.items()):
            if now - call.progressed > call.limit_s:
                what = "loading" if slot == LOADING else "running"
                self._box.reason = f"{what} {call.module} has not ended after {now - call.began:.0f} s"
                return self._box.reason
        return None

    def note_progress(self, call: Call) -> None:
        """Notes that a slice of a call has ended: its time limit begins anew."""
        call.progressed = self._clock()

    def gets_on(self, call: Call, after_s: float) -> bool:
        """Returns whether a call has lasted so many seconds, and its last progress is no longer ago than is usual."""
        now = self._clock()
        return now - call.began >= after_s and now - call.progressed <= call.usual_s

    def is_recent(self, module: str, stepped_at: float) -> bool:
        """Returns whether the end of a module's last step, monotonic seconds, is no longer ago than is usual for it."""
        return self._clock() - stepped_at <= self._usual_s(module)

    def _usual_s(self, module: str) -> float:
        allowed_s = max(self._hang_s, self._allowed.get(module, 0.0))
        return max(allowed_s, _TIMES_SLOWEST * self._slowest.get(module, 0.0))

    def refuse_poison(self, request: bytes) -> None:
        """Refuses a poison request.

        Raises:
            ModuleFailedError: The request, or several of the same content, ran alone when an earlier process crashed.
        """
        history = self._crash_history
        why = history.poison.get(request) or history.poison_contents.get(content_of(request))
        if why is not None:
            raise ModuleFailedError(why)

    def is_suspected(self, request: bytes) -> bool:
        """Whether the request, or one of its content, ran when a process crashed, so that it has to run alone."""
        history = self._crash_history
        return request in history.suspects or content_of(request) in history.suspect_contents
