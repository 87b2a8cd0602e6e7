"""Failed loads of a module on a node: why, and the back-off after each. Pure: callers pass monotonic seconds."""

from dataclasses import dataclass, field, replace

from s2m3.schemas.messages import ErrorBody

__all__ = ["LoadFailures"]

#: Exponential back-off: after the n-th failed load of a module on a node, no new attempt for 2^(n-1) times this.
_RETRY_LOAD_S = 10.0
#: Largest exponent of the back-off.
_RETRY_MAX = 6


@dataclass(slots=True)
class _Failures:
    count: int = 0
    until: float = 0.0
    noted: float = 0.0
    reason: ErrorBody | None = None


@dataclass(slots=True)
class LoadFailures:
    """The failed loads of each module on each node."""

    _of: dict[tuple[str, str], _Failures] = field(default_factory=dict)

    def copy(self) -> "LoadFailures":
        """Returns an independent copy."""
        return LoadFailures({key: replace(failures) for key, failures in self._of.items()})

    def note(self, node: str, module: str, now: float, reason: ErrorBody | None = None) -> None:
        """Notes a failed load, with the node's reason: the back-off before the next attempt on that node grows."""
        failures = self._of.setdefault((node, module), _Failures())
        failures.noted, failures.reason = now, reason
        failures.until = now + _RETRY_LOAD_S * 2 ** min(failures.count, _RETRY_MAX)
        failures.count += 1

    def forget(self, node: str) -> None:
        """Ends all back-offs of a node that restarted: its new process may succeed."""
        for key in [key for key in self._of if key[0] == node]:
            del self._of[key]

    def may_load(self, node: str, module: str, now: float) -> bool:
        """Returns whether no back-off is in effect."""
        failures = self._of.get((node, module))
        return failures is None or failures.until <= now

    def of(self, module: str) -> frozenset[str]:
        """Returns the nodes on which a module failed."""
        return frozenset(node for node, failed in self._of if failed == module)

    def modules(self) -> frozenset[str]:
        """Returns the modules that failed on any node."""
        return frozenset(module for _, module in self._of)

    def reason(self, module: str) -> ErrorBody | None:
        """Returns the reason of a module's newest failure on any node; None if the module failed on none.

        A node's report has the reason only until the next plan arrives, which does not name the module in its back-off.
        """
        failed = [failures for (_, name), failures in self._of.items() if name == module]
        return max(failed, key=lambda failures: failures.noted).reason if failed else None

    def ends(self, now: float) -> list[float]:
        """Returns when the back-offs in effect end."""
        return [failures.until for failures in self._of.values() if failures.until > now]
