"""Node states with boot ids, so that a late last will of an earlier process is ignored. Pure."""

from dataclasses import dataclass, field

from s2m3.schemas.messages import NodeState

__all__ = ["NodeStates"]


@dataclass(slots=True)
class NodeStates:
    """The state of each node, from its retained `node/<node>/state`."""

    _state: dict[str, NodeState] = field(default_factory=dict)
    _unseen: set[str] = field(default_factory=set)
    #: lost, ready and present nodes; None after a change
    _by_state: tuple[frozenset[str], frozenset[str], frozenset[str]] | None = None

    def copy(self) -> "NodeStates":
        """Returns an independent copy."""
        return NodeStates(dict(self._state), set(self._unseen), self._by_state)

    def update(self, node: str, state: NodeState | None) -> bool:
        """Sets a node's state; returns whether it changed.

        A `lost` with another boot id than the node's current one is the last will of an earlier process and is ignored.
        None (the retained message was cleared) removes the node.
        """
        known = self._state.get(node)
        self._by_state = None
        self._unseen.discard(node)
        if state is None:
            return self._state.pop(node, None) is not None
        if state.state == "lost" and known is not None and known.boot != state.boot:
            return False
        self._state[node] = state
        return known != state

    def forget(self) -> None:
        """Counts every node as lost until its state arrives again; to be called when the connection is lost."""
        self._unseen |= self._state.keys()
        self._state.clear()
        self._by_state = None

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
        return self._sorted_out()[0]

    @property
    def ready(self) -> frozenset[str]:
        """Nodes whose state is ready: they accept new work."""
        return self._sorted_out()[1]

    @property
    def present(self) -> frozenset[str]:
        """Nodes whose state is ready, draining, or one that only a newer release knows."""
        return self._sorted_out()[2]

    def _sorted_out(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        if self._by_state is None:
            states = {node: state.state for node, state in self._state.items()}
            lost = frozenset(node for node, state in states.items() if state == "lost")
            ready = frozenset(node for node, state in states.items() if state == "ready")
            self._by_state = lost | self._unseen, ready, frozenset(states) - lost
        return self._by_state
