"""A cache of the computed run times of each module on each node, from one plan to the next. Pure.

Each plan of a site of a thousand nodes and three hundred modules needs all times, of which hardly any has changed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import is_

from s2m3.planner.site.compute_time import Pace
from s2m3.planner.site.part_sources import Sender
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.messages import NodeProfile

__all__ = ["NodeSet", "Row", "RunTimes"]

#: Sets of nodes that are remembered: a plan may use all nodes, the steady ones, and either with sleeping ones.
_MOST_SETS = 4


@dataclass(frozen=True, slots=True, eq=False)
class NodeSet:
    """Nodes with their profiles; the same object stands for the same nodes with the same profiles."""

    nodes: tuple[str, ...]
    profiles: tuple[NodeProfile, ...]


class Row(dict[str, tuple[NodeProfile, float | None]]):
    """The times of a module: node -> the profile that the time was computed with, and the seconds per item.

    None in the place of the seconds: the node cannot load the module.
    """

    #: the nodes for which all times were asked last, and the times of those that can load the module
    whole: tuple[NodeSet, Mapping[str, float]] | None = None


@dataclass(slots=True)
class _Kept:
    spec: ModuleSpec
    pace: Pace | None
    senders: list[Sender]
    row: Row = field(default_factory=Row)


@dataclass(slots=True)
class RunTimes:
    """A row of times for each module, for nodes that neither hold the module nor failed to load it."""

    _kept: dict[str, _Kept] = field(default_factory=dict)
    #: the newest last
    _sets: list[NodeSet] = field(default_factory=list)

    def node_set(self, nodes: Collection[str], profiles: Mapping[str, NodeProfile]) -> NodeSet:
        """Returns the object that stands for nodes with their present profiles."""
        found = NodeSet(tuple(nodes), tuple(profiles[node] for node in nodes))
        for known in self._sets:
            if known.nodes == found.nodes and all(map(is_, known.profiles, found.profiles)):
                return known
        self._sets = [*self._sets[-_MOST_SETS + 1 :], found]
        return found

    def row(self, spec: ModuleSpec, pace: Pace | None, senders: list[Sender]) -> Row:
        """Returns a module's row, to be read and filled in; it is empty after a change that concerns all its times.

        Args:
            spec: The module.
            pace: The pace of the module on nodes that have run it.
            senders: The nodes that send its part to nodes without it.
        """
        kept = self._kept.get(spec.id)
        if kept is None or (kept.pace, kept.senders) != (pace, senders) or not _is_same(kept.spec, spec):
            kept = self._kept[spec.id] = _Kept(spec, pace, senders)
        return kept.row

    def keep(self, modules: Collection[str], nodes: Collection[str]) -> None:
        """Forgets the other modules, and absent nodes once they are as many as the present ones."""
        for module in [module for module in self._kept if module not in modules]:
            del self._kept[module]
        for kept in self._kept.values():
            if len(kept.row) > 2 * len(nodes):
                kept.row = Row({node: time for node, time in kept.row.items() if node in nodes})


def _is_same(one: ModuleSpec, other: ModuleSpec) -> bool:
    return one is other or one == other
