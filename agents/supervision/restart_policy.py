"""What to do when an agent's process died: who is to blame, what is not loaded again, when to give up. Pure.

The rule is OTP's: so many restarts in so much time, then the fault is told instead of tried once more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s2m3.agents.supervision.blackbox import LOADING, Mark

__all__ = ["CrashHistory", "RestartPolicy"]

#: A module may take the process with it so often in so many seconds; the next time it is reported `failed`.
_MOST = 3
_WITHIN_S = 60.0
#: Deaths of whatever cause in so many seconds after which the keeper gives up too.
_MOST_DEATHS = 10
#: Requests remembered that a process did not survive.
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class CrashHistory:
    """What a new process is to know of those before it.

    Args:
        failed: Modules not to be loaded once, but reported failed -> why.
        deadly: Requests that were being run alone when the process died -> why: they are not run here again.
        suspect: Requests of a batch that died: one of them is to blame, so each is run alone.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    poison: Mapping[bytes, str] = field(default_factory=dict)
    suspects: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class RestartPolicy:
    """Keeps count of deaths. Told the time, monotonic seconds."""

    _deaths: list[float] = field(default_factory=list)
    _blamed: dict[str, list[float]] = field(default_factory=dict)
    _poison: dict[bytes, str] = field(default_factory=dict)
    _suspects: dict[bytes, None] = field(default_factory=dict)

    def after(self, why: str, marks: Iterable[Mark], now: float, *, poison: bool) -> CrashHistory | None:
        """Takes a death in.

        Args:
            why: What ended the process.
            marks: What was under way.
            now: When.
            poison: Whether the input can be to blame: SIGKILL for want of memory may hit whoever is at work.

        Returns:
            What the next process is to know; None if there has been enough of it.
        """
        self._deaths = [*(t for t in self._deaths if t > now - _WITHIN_S), now]
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
        if len(self._deaths) > _MOST_DEATHS:
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
