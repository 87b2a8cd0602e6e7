"""Finds documents that other documents refer to and that the broker never delivered. Pure: no I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.messages import RouteDoc

__all__ = ["MissingDocuments"]


@dataclass(slots=True)
class MissingDocuments:
    """Nodes that an earlier planner's documents or telemetry name, and whose own documents may be missing."""

    #: `plan/<node>` or `route/<task>` -> the nodes named there
    _named: dict[str, set[str]] = field(default_factory=dict)
    #: nodes that sent telemetry
    _loads: set[str] = field(default_factory=set)

    def on_plan(self, node: str) -> None:
        """Notes a node that has a plan of an earlier planner."""
        self._named.setdefault(f"plan/{node}", set()).add(node)

    def on_route(self, task: str, doc: RouteDoc) -> None:
        """Notes the nodes in an earlier planner's route document."""
        self._named[f"route/{task}"] = set(doc.nodes)

    def on_load(self, node: str) -> None:
        """Notes a node that sent telemetry."""
        self._loads.add(node)

    def on_lost(self, node: str) -> None:
        """Notes that a node was lost: if telemetry contradicts that later, the node's own state is missing."""
        self._loads.discard(node)

    def on_planned(self) -> None:
        """Notes that our own plans and routes have replaced those of the earlier planner."""
        self._named.clear()

    def find(self, cluster: ClusterState) -> frozenset[str]:
        """Returns the topics, below the root, of the documents that are missing."""
        nodes = cluster.nodes
        named = self._loads.union(*self._named.values(), cluster.profiles, cluster.reported)
        self._loads = {node for node in self._loads if nodes.state(node) in (None, "lost")}
        outdated = [f"node/{node}/state" for node in self._loads if nodes.state(node) == "lost"]
        return frozenset([*_states(named, cluster), *outdated, *_profiles(nodes.present, cluster)])

    def on_asked(self, cluster: ClusterState) -> None:
        """Notes a roll call: only telemetry that comes after it contradicts again that a node is lost."""
        self._loads = {node for node in self._loads if cluster.nodes.state(node) is None}


def _states(named: Iterable[str], cluster: ClusterState) -> list[str]:
    return [f"node/{node}/state" for node in named if cluster.nodes.state(node) is None]


def _profiles(present: Iterable[str], cluster: ClusterState) -> list[str]:
    """Returns profiles and reports that are missing, or of another boot (process) than the node's state."""
    found = []
    for node in present:
        boot, profile, reported = cluster.nodes.boot(node), cluster.profiles.get(node), cluster.reported.get(node)
        if profile is None or profile.boot != boot:
            found.append(f"node/{node}/profile")
        if reported is None or reported.boot != boot:
            found.append(f"node/{node}/reported")
    return found
