"""What does not fit in what the planner was told: documents that others speak of and the broker never gave. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.messages import RouteDoc

__all__ = ["MissingDocuments"]


@dataclass(slots=True)
class MissingDocuments:
    """Nodes that are spoken of, by plans and routes of a planner before us and by their own telemetry."""

    _named: dict[str, set[str]] = field(default_factory=dict)
    _loads: set[str] = field(default_factory=set)

    def on_plan(self, node: str) -> None:
        """Takes note of a node that a planner before us gave a plan."""
        self._named.setdefault(f"plan/{node}", set()).add(node)

    def on_route(self, task: str, doc: RouteDoc) -> None:
        """Takes note of the nodes that a route of a planner before us names."""
        self._named[f"route/{task}"] = {replica.node for step in doc.steps.values() for replica in step.replicas}

    def on_load(self, node: str) -> None:
        """Takes note of a node that says how busy it is."""
        self._loads.add(node)

    def on_planned(self) -> None:
        """Takes note that our own plans and routes have taken the place of those before."""
        self._named.clear()

    def find(self, cluster: ClusterState) -> frozenset[str]:
        """Returns the topics, below the root, of the documents that are missing."""
        nodes = cluster.nodes
        spoken_of = self._loads.union(*self._named.values(), cluster.profiles, cluster.reported)
        self._loads = {node for node in self._loads if nodes.state(node) is None}
        return frozenset([*_states(spoken_of, cluster), *_profiles(nodes.present, cluster)])


def _states(spoken_of: Iterable[str], cluster: ClusterState) -> list[str]:
    return [f"node/{node}/state" for node in spoken_of if cluster.nodes.state(node) is None]


def _profiles(present: Iterable[str], cluster: ClusterState) -> list[str]:
    """A node's documents are of one process: of another's boot, they are as good as missing."""
    found = []
    for node in present:
        boot, profile, reported = cluster.nodes.boot(node), cluster.profiles.get(node), cluster.reported.get(node)
        if profile is None or profile.boot != boot:
            found.append(f"node/{node}/profile")
        if reported is None or reported.boot != boot:
            found.append(f"node/{node}/reported")
    return found
