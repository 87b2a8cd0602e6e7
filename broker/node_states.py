"""Node states with boot ids, so that a late last will of an earlier process is ignored. Pure."""

from dataclasses import dataclass, field

from s2m3.schemas.messages import NodeState

__all__ = ["NodeStates"]


@dataclass(slots=True)
class NodeStates:
    """The state of each node, from its retained `node/<node>/state`.

    One thread updates it. Others may read `lost`, `ready` and `present` meanwhile.
    """

    _state: dict[str, NodeState] = field(default_factory=dict)
    _unseen: set[str] = field(default_factory=set)
    #: number of changes; with the lost, ready and present nodes: how many changes these are of
    _changes: int = 0
    _by_state: tuple[int, frozenset[str], frozenset[str], frozenset[str]] | None = None

    def copy(self) -> "NodeStates":
        """Returns an independent copy."""
        return NodeStates(dict(self._state), set(self._unseen), self._changes, self._by_state)

    def update(self, node: str, state: NodeState | None) -> bool:
        """Sets a node's state; returns whether it changed.

        A `lost` with another boot id than the node's current one is the last will of an earlier process and is ignored.
        None (the retained message was cleared) removes the node.
        """
        known = self._state.get(node)
        if node in self._unseen:
            self._unseen.discard(node)
            self._changes += 1
        if known == state or _is_late_will(known, state):
            return False
        if state is None:
            del self._state[node]
        else:
            self._state[node] = state
        self._changes += 1
        return True

    def forget(self) -> None:
        """Counts every node as lost until its state arrives again; to be called when the connection is lost."""
        self._unseen |= self._state.keys()
        self._state.clear()
        self._changes += 1

    def boot(self, node: str) -> str | None:
        """Returns the boot id of the node's current process."""
        known = self._state.get(node)
        return known.boot if known else None

    def protocol(self, node: str) -> int:
        """Returns the protocol number of the node's current process; 0 for an unknown node."""
        known = self._state.get(node)
        return known.protocol if known else 0

    def state(self, node: str) -> str | None:
        """Returns ready, draining, lost or unknown; None for an unknown node."""
        known = self._state.get(node)
        return known.state if known else None

    def has_left(self, node: str) -> bool:
        """Returns whether a node is lost and left in order."""
        known = self._state.get(node)
        return known is not None and known.state == "lost" and known.left

    @property
    def lost(self) -> frozenset[str]:
        """Nodes whose state is lost, or has not arrived since `forget`."""
        return self._sorted_out()[1]

    @property
    def ready(self) -> frozenset[str]:
        """Nodes whose state is ready: they accept new work."""
        return self._sorted_out()[2]

    @property
    def present(self) -> frozenset[str]:
        """Nodes whose state is ready, draining, or one that only a newer release knows."""
        return self._sorted_out()[3]

    def _sorted_out(self) -> tuple[int, frozenset[str], frozenset[str], frozenset[str]]:
        found, changes = self._by_state, self._changes  # before the states: what changes meanwhile is sorted out again
        if found is None or found[0] != changes:
            unseen, states = frozenset(self._unseen), {node: state.state for node, state in self._state.copy().items()}
            lost = frozenset(node for node, state in states.items() if state == "lost")
            ready = frozenset(node for node, state in states.items() if state == "ready")
            found = self._by_state = changes, lost | unseen, ready, frozenset(states) - lost
        return found


def _is_late_will(known: NodeState | None, state: NodeState | None) -> bool:
    """Whether a state is the last will of an earlier process than the node's current one."""
    return known is not None and state is not None and state.state == "lost" and known.boot != state.boot
