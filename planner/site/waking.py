"""Decides when sleeping nodes are woken, by which node, and when one is given up. Pure: callers pass monotonic time."""

from dataclasses import dataclass, field

from s2m3.planner.site.cluster_state import ClusterState

__all__ = ["Waking", "helpers"]

#: A node that has not come an interval after so many magic packets is given up.
_MOST_PACKETS = 3
#: A node that was given up is tried again at the first request after this long.
_GIVEN_UP_S = 3600.0
_ASLEEP = "asleep; it is woken when a request wants it"


@dataclass(slots=True)
class _Attempt:
    """The magic packets that one wish for a node has led to."""

    why: str
    packets: int = 0
    #: the node that was told to send the last one; None if there was none to tell
    helper: str | None = None
    given_up_until: float | None = None


@dataclass(slots=True)
class Waking:
    """The attempts to wake nodes.

    Args:
        interval_s: Least time between two magic packets to one node, seconds.
    """

    interval_s: float
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    #: node -> when its last magic packet was due
    _last: dict[str, float] = field(default_factory=dict)

    def want(self, node: str, why: str, now: float, *, afresh: bool = False) -> None:
        """Notes that a sleeping node is wanted; `afresh` ends an earlier attempt, also one that was given up."""
        attempt = self._attempts.get(node)
        is_over = attempt is not None and attempt.given_up_until is not None and attempt.given_up_until <= now
        if attempt is None or is_over or afresh:
            self._attempts[node] = _Attempt(why)

    def forget(self, node: str) -> None:
        """Ends the attempt to wake a node: it has come, or is no longer to be woken."""
        self._attempts.pop(node, None)

    @property
    def nodes(self) -> list[str]:
        """The nodes that are wanted, or were given up."""
        return list(self._attempts)

    def due(self, now: float) -> list[str]:
        """Returns the nodes that a magic packet is to be sent to now; gives up nodes that got enough of them."""
        found = []
        for node, attempt in self._attempts.items():
            if attempt.given_up_until is not None or now < self._last.get(node, float("-inf")) + self.interval_s:
                continue
            if attempt.packets < _MOST_PACKETS:
                found.append(node)
            else:
                attempt.given_up_until = now + _GIVEN_UP_S
        return found

    def sent(self, node: str, helper: str | None, now: float) -> None:
        """Notes that a helper was told to send a magic packet to a node; None if there was no helper."""
        self._last[node] = now
        attempt = self._attempts[node]
        attempt.packets += 1
        attempt.helper = helper

    def packets(self, node: str) -> int:
        """Returns the magic packets of the attempt under way."""
        attempt = self._attempts.get(node)
        return attempt.packets if attempt is not None else 0

    def text(self, node: str) -> str:
        """Returns the state of waking a sleeping node, a text for people."""
        attempt = self._attempts.get(node)
        if attempt is None or not (attempt.packets or attempt.given_up_until):
            return _ASLEEP
        by = f"the last sent by {attempt.helper}" if attempt.helper else "and no node is there that could send one"
        if attempt.given_up_until is None:
            return f"being woken for {attempt.why}: magic packet {attempt.packets} of {_MOST_PACKETS}, {by}"
        return (
            f"given up: wanted for {attempt.why}, {attempt.packets} magic packets {self.interval_s:g} s apart, {by}, "
            f"and it did not come; a request in an hour, or `s2m3 node wake {node}`, tries again"
        )


def helpers(cluster: ClusterState, node: str) -> list[str]:
    """Returns the nodes that may send a magic packet to a sleeping node: those of its network first."""
    sleeper = cluster.profiles.get(node)
    network = sleeper.network if sleeper is not None else ""
    known = [name for name in sorted(cluster.nodes.present - {node}) if name in cluster.profiles]
    return sorted(known, key=lambda name: (not network or cluster.profiles[name].network != network, name))
