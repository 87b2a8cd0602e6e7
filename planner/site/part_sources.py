"""Finds the nodes from which another node can fetch a part of a checkpoint, and the cost of the transfer. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest

from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.messages import NodeProfile
from s2m3.schemas.parts import part_key

__all__ = ["Sender", "Senders", "fetch_price_s", "has_part", "is_served_of_export"]

#: Part of the slower link that a transfer gets: requests come first.
_LINK_SHARE = 0.5
#: Requests within which a better place must make up for the transfer, as for loads (planner/solving/replan.py).
_PAYBACK_REQUESTS = 1000.0


#: The runtime that exported parts are for.
_ONNX = "onnx"


def is_served_of_export(spec: ModuleSpec, profile: NodeProfile) -> bool:
    """Returns whether a node serves a module of an exported part alone: it has no torch."""
    return spec.class_ in profile.exported and spec.class_ not in profile.classes


def has_part(spec: ModuleSpec, profile: NodeProfile) -> bool:
    """Returns whether a node need not fetch a module's part.

    Its source, or the part itself, is on the node's disk; on a node that serves the module of an export, that export.
    """
    if is_served_of_export(spec, profile):
        return profile.parts is not None and part_key(spec, _ONNX, profile.dtype) in profile.parts.keys
    return spec.source in profile.sources or (profile.parts is not None and part_key(spec) in profile.parts.keys)


@dataclass(frozen=True, slots=True)
class Sender:
    """A node that sends parts, and its link, 10^6 bits a second."""

    node: str
    mbps: float


class Senders:
    """The nodes that send parts, by the sources of checkpoints and the keys of parts that they have.

    Args:
        present: The present nodes' profiles.
    """

    def __init__(self, present: Mapping[str, NodeProfile]) -> None:
        self._by_source: dict[str, set[str]] = defaultdict(set)
        self._by_key: dict[str, set[str]] = defaultdict(set)
        #: class, and source -> the nodes that export parts of this class, and those that load from this source
        self._exports: dict[str, set[str]] = defaultdict(set)
        self._loads: dict[str, set[str]] = defaultdict(set)
        self._mbps = {node: profile.mbps for node, profile in present.items()}
        for node, profile in present.items():
            if profile.parts is not None:
                for source in profile.parts.sources:
                    self._by_source[source].add(node)
                for key in profile.parts.keys:
                    self._by_key[key].add(node)
                for class_ in profile.parts.exports:
                    self._exports[class_].add(node)
                for source in profile.sources if profile.parts.exports else ():
                    self._loads[source].add(node)

    def best(self, spec: ModuleSpec) -> list[Sender]:
        """Returns the two senders of a module's part with the fastest links: one of them may be the node that asks."""
        able = self._by_source.get(spec.source, set())
        if (adapter := spec.config.get(ADAPTER)) is not None:
            able = able & self._by_source.get(str(adapter), set())
        return self._fastest(able | self._by_key.get(part_key(spec), set()))

    def best_of_exports(self, spec: ModuleSpec, dtype: str) -> list[Sender]:
        """Returns the same of nodes that have a module's export, or can make it."""
        able = self._exports.get(spec.class_, set()) & self._loads.get(spec.source, set())
        if (adapter := spec.config.get(ADAPTER)) is not None:
            able = able & self._loads.get(str(adapter), set())
        return self._fastest(able | self._by_key.get(part_key(spec, _ONNX, dtype), set()))

    def _fastest(self, able: set[str]) -> list[Sender]:
        found = nlargest(2, sorted(able), key=lambda name: self._mbps[name])
        return [Sender(name, self._mbps[name]) for name in found]


def fetch_price_s(spec: ModuleSpec, profile: NodeProfile, sender: Sender | None) -> float:
    """Returns what fetching a module's part costs each request on a node, seconds; 0 if the node has the part.

    It is the time of the transfer over the measured links, divided by the requests that have to make up for it.
    """
    if sender is None or has_part(spec, profile):
        return 0.0
    mbps = min(profile.mbps, sender.mbps) * _LINK_SHARE
    return spec.memory_mb * 8 / mbps / _PAYBACK_REQUESTS
