"""Back-off after failed loads of a module on a node. Pure: callers pass the time, monotonic seconds."""

from dataclasses import dataclass, field, replace

__all__ = ["LoadFailures"]

#: Exponential back-off: after the n-th failed load of a module on a node, no new attempt for 2^(n-1) times this.
_RETRY_LOAD_S = 10.0
#: Largest exponent of the back-off.
_RETRY_MAX = 6


@dataclass(slots=True)
class _Failures:
    count: int = 0
    until: float = 0.0


@dataclass(slots=True)
class LoadFailures:
    """The failed loads of each module on each node."""

    _of: dict[tuple[str, str], _Failures] = field(default_factory=dict)

    def copy(self) -> "LoadFailures":
        """Returns an independent copy."""
        return LoadFailures({key: replace(failures) for key, failures in self._of.items()})

    def note(self, node: str, module: str, now: float) -> None:
        """Notes a failed load: the back-off before the next attempt on that node grows."""
        failures = self._of.setdefault((node, module), _Failures())
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

    def ends(self, now: float) -> list[float]:
        """Returns when the back-offs in effect end."""
        return [failures.until for failures in self._of.values() if failures.until > now]
