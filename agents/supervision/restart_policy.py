"""The restart policy after a crash: which module or request is to blame, and when to give up. Pure.

As in Erlang/OTP, a fault is retried up to a number of times within a period (restart intensity), then reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s2m3.agents.supervision.blackbox import LOADING, Mark

__all__ = ["CrashHistory", "RestartPolicy"]

#: Crashes that a module may cause within this period, seconds; with the next one it is reported `failed`.
_MOST = 3
_WITHIN_S = 60.0
#: Crashes of any cause within the same period after which the supervisor gives up.
_MOST_CRASHES = 10
#: Most poison requests, and most suspects, that are remembered.
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class CrashHistory:
    """What a new process has to know about the crashes of earlier ones.

    Args:
        failed: Modules that are reported failed instead of loaded, once -> reason.
        poison: Requests that ran alone when the process crashed -> reason; they are not run on this node again.
        suspects: Requests of a batch during which the process crashed; each is run alone to find the poison request.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    poison: Mapping[bytes, str] = field(default_factory=dict)
    suspects: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class RestartPolicy:
    """Counts crashes by module. Callers pass the time, monotonic seconds."""

    _crashes: list[float] = field(default_factory=list)
    _blamed: dict[str, list[float]] = field(default_factory=dict)
    _poison: dict[bytes, str] = field(default_factory=dict)
    _suspects: dict[bytes, None] = field(default_factory=dict)

    def after(self, why: str, marks: Iterable[Mark], now: float, *, poison: bool) -> CrashHistory | None:
        """Records a crash and decides about the next start.

        Args:
            why: What ended the process.
            marks: The work in progress at the crash.
            now: Monotonic seconds.
            poison: Whether a request can be to blame. False for a SIGKILL by the OOM killer, which any work may meet.

        Returns:
            The crash history for the next process; None to give up.
        """
        self._crashes = [*(t for t in self._crashes if t > now - _WITHIN_S), now]
        failed = {}
        for mark in marks:
            times = self._blamed[mark.module] = [
                *(t for t in self._blamed.get(mark.module, ()) if t > now - _WITHIN_S),
                now,
            ]
            if mark.slot == LOADING:
                failed[mark.module] = f"loading it ended the process: {why}"
            elif len(times) > _MOST:
                failed[mark.module] = f"it ended the process {len(times)} times in {_WITHIN_S:g} s: {why}"
            self._remember(mark, why, poison=poison)
        if len(self._crashes) > _MOST_CRASHES:
            return None
        return CrashHistory(failed, dict(self._poison), frozenset(self._suspects))

    def _remember(self, mark: Mark, why: str, *, poison: bool) -> None:
        if poison and len(mark.requests) == 1:
            self._poison[mark.requests[0]] = f"{mark.module} did not survive this input: {why}"
        else:
            self._suspects.update(dict.fromkeys(mark.requests))
        for kept in (self._poison, self._suspects):
            for request in list(kept)[:-_REMEMBERED]:
                kept.pop(request)
