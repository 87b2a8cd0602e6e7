"""The restart policy after a crash: which module or request is to blame, and when to give up. Pure.

As in Erlang/OTP, a fault is retried up to a number of times within a period (restart intensity), then reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s2m3.agents.supervision.blackbox import LOADING
from s2m3.schemas.request_ids import content_of

__all__ = ["CrashHistory", "Mark", "RestartPolicy"]

#: Crashes that a module may cause within this period, seconds; with the next one it is reported `failed`.
_MOST = 3
_WITHIN_S = 60.0
#: Crashes of any cause within the same period after which the supervisor gives up.
_MOST_CRASHES = 10
#: Requests of one content (`content_of` their ids) that have to end a process alone within this time, seconds, until
#: none of that content is run. One may die of chance; and what is wrong may be mended.
_CONTENT_DEATHS, _CONTENT_S = 2, 600.0
#: Most poison requests, suspects and contents that are remembered.
_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Mark:
    """A module that was being run for some requests, or loaded (without requests)."""

    slot: int
    module: str
    requests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CrashHistory:
    """What a new process has to know about the crashes of earlier ones.

    Args:
        failed: Modules that are reported failed instead of loaded, once -> reason.
        poison: Requests that ran alone when the process crashed -> reason; they are not run on this node again.
        suspects: Requests of a batch during which the process crashed; each is run alone to find the poison request.
        poison_contents: Contents of requests that ran alone at several crashes -> reason. A plain request has another
            id, and the same content, when its session brings it to the next gateway.
        suspect_contents: Contents of all requests that ran at a crash lately; each is run alone.
    """

    failed: Mapping[str, str] = field(default_factory=dict)
    poison: Mapping[bytes, str] = field(default_factory=dict)
    suspects: frozenset[bytes] = frozenset()
    poison_contents: Mapping[bytes, str] = field(default_factory=dict)
    suspect_contents: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class RestartPolicy:
    """Counts crashes by module. Callers pass the time, monotonic seconds."""

    _crashes: list[float] = field(default_factory=list)
    _blamed: dict[str, list[float]] = field(default_factory=dict)
    _poison: dict[bytes, str] = field(default_factory=dict)
    _suspects: dict[bytes, None] = field(default_factory=dict)
    #: content -> when a process crashed with a request of it, whether that was alone, and the reason
    _contents: dict[bytes, list[tuple[float, bool, str]]] = field(default_factory=dict)

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
        marks = list(marks)
        requests = {request: None for mark in marks for request in mark.requests}
        contents = {content_of(request): None for request in requests}
        is_alone = len(contents) == 1  # branches of one request may run beside each other
        for mark in marks:
            times = self._blamed[mark.module] = [
                *(t for t in self._blamed.get(mark.module, ()) if t > now - _WITHIN_S),
                now,
            ]
            if mark.slot == LOADING:
                failed[mark.module] = f"loading it ended the process: {why}"
            elif len(times) > _MOST:
                failed[mark.module] = f"it ended the process {len(times)} times in {_WITHIN_S:g} s: {why}"
        modules = " and ".join(dict.fromkeys(mark.module for mark in marks if mark.requests))
        self._remember(requests, f"{modules} did not survive this input: {why}", poison=poison and is_alone)
        reason = f"{modules} did not survive this input {_CONTENT_DEATHS} times: {why}"
        self._remember_contents(contents, reason, now, is_alone=is_alone)
        if len(self._crashes) > _MOST_CRASHES:
            return None
        poison_contents = {
            content: reason
            for content, deaths in self._contents.items()
            if len(reasons := [why for _, alone, why in deaths if alone]) >= _CONTENT_DEATHS
            for reason in reasons[-1:]
        }
        return CrashHistory(
            failed, dict(self._poison), frozenset(self._suspects), poison_contents, frozenset(self._contents)
        )

    def _remember(self, requests: Iterable[bytes], reason: str, *, poison: bool) -> None:
        if poison:
            self._poison.update(dict.fromkeys(requests, reason))
        else:
            self._suspects.update(dict.fromkeys(requests))
        for kept in (self._poison, self._suspects):
            for request in list(kept)[:-_REMEMBERED]:
                kept.pop(request)

    def _remember_contents(self, contents: Iterable[bytes], reason: str, now: float, *, is_alone: bool) -> None:
        for content in contents:
            self._contents.setdefault(content, []).append((now, is_alone, reason))
        recent = {
            content: [death for death in deaths if death[0] > now - _CONTENT_S]
            for content, deaths in self._contents.items()
        }
        kept = [content for content, deaths in recent.items() if deaths][-_REMEMBERED:]
        self._contents = {content: recent[content] for content in kept}
