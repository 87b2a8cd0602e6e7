"""Which nodes are there: states with boot ids, so that a last will that comes late takes nobody down. Pure."""

from dataclasses import dataclass, field

from s2m3.schemas.messages import NodeState

__all__ = ["NodeStates"]


@dataclass(slots=True)
class NodeStates:
    """The nodes' states as their retained topics tell."""

    _state: dict[str, NodeState] = field(default_factory=dict)
    _unseen: set[str] = field(default_factory=set)

    def update(self, node: str, state: NodeState | None) -> bool:
        """Takes in what came; returns whether the node's state changed.

        A `lost` of a boot that is not the node's current one is an old process's will and is ignored. None (the
        retained message was cleared) means the node was removed.
        """
        known = self._state.get(node)
        self._unseen.discard(node)
        if state is None:
            return self._state.pop(node, None) is not None
        if state.state == "lost" and known is not None and known.boot != state.boot:
            return False
        self._state[node] = state
        return known != state

    def forget(self) -> None:
        """The connection is gone: none of the nodes is taken to be there until its state is heard again."""
        self._unseen |= self._state.keys()
        self._state.clear()

    def boot(self, node: str) -> str | None:
        """Returns the boot id of the node's current process."""
        known = self._state.get(node)
        return known.boot if known else None

    def protocol(self, node: str) -> int:
        """Returns the protocol number that the node's current process speaks; 0 for a node never heard of."""
        known = self._state.get(node)
        return known.protocol if known else 0

    def state(self, node: str) -> str | None:
        """Returns ready, draining, lost or unknown; None for a node never heard of."""
        known = self._state.get(node)
        return known.state if known else None

    @property
    def lost(self) -> frozenset[str]:
        """Nodes that are gone, or were not heard of since `forget`."""
        return frozenset(self._unseen).union(node for node, state in self._state.items() if state.state == "lost")

    @property
    def ready(self) -> frozenset[str]:
        """Nodes that take new work."""
        return frozenset(node for node, state in self._state.items() if state.state == "ready")

    @property
    def present(self) -> frozenset[str]:
        """Nodes that are there: ready, draining, or in a state that only a newer release knows."""
        return frozenset(node for node, state in self._state.items() if state.state != "lost")
