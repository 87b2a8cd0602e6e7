"""An index of the documents of all nodes by module, made once for all questions of one plan. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property

from s2m3.broker.node_states import NodeStates
from s2m3.planner.site.compute_time import Pace, pace_of
from s2m3.planner.site.part_sources import Sender, Senders, is_served_of_export
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype, share_of
from s2m3.schemas.messages import ModuleReport, NodeProfile, Reported

__all__ = ["SiteIndex"]


class SiteIndex:
    """The nodes' documents by module. Each table is made when it is first asked for; no document may change after that.

    Args:
        nodes: The nodes' states.
        profiles: The nodes' profiles.
        reported: The nodes' reports.
    """

    def __init__(
        self, nodes: NodeStates, profiles: Mapping[str, NodeProfile], reported: Mapping[str, Reported]
    ) -> None:
        self._nodes, self._profiles, self._reported = nodes, profiles, reported
        self._paces: dict[str, Pace | None] = {}
        self._best: dict[tuple[str, str], list[Sender]] = {}

    @cached_property
    def usable(self) -> list[str]:
        """The nodes that are ready and have a profile of their current boot, sorted."""
        return sorted(node for node in self._nodes.ready if self._is_current(node))

    @cached_property
    def links(self) -> Mapping[str, tuple[float, float]]:
        """Host of usable nodes -> its link: latency, milliseconds, and Mbit/s.

        Agents of one host share its link. Each has measured the same link, and a busy link measures worse.
        """
        found: dict[str, tuple[float, float]] = {}
        for profile in (self._profiles[node] for node in self.usable):
            latency_ms, mbps = found.get(profile.host, (float("inf"), 0.0))
            found[profile.host] = min(latency_ms, profile.latency_ms), max(mbps, profile.mbps)
        return found

    @cached_property
    def dtypes(self) -> frozenset[Dtype]:
        """The dtypes of the usable nodes; float32 if there are none."""
        return frozenset(self._profiles[node].dtype for node in self.usable) or frozenset(("float32",))

    @cached_property
    def held(self) -> Mapping[str, Mapping[str, ModuleReport]]:
        """Module -> node -> report, of the present nodes' current boots, nodes sorted."""
        found: dict[str, dict[str, ModuleReport]] = defaultdict(dict)
        for node in sorted(self._nodes.present):
            reported = self._reported.get(node)
            if reported is not None and reported.boot == self._nodes.boot(node) and self._is_current(node):
                for module, report in reported.modules.items():
                    found[module][node] = report
        return dict(found)

    @cached_property
    def measured_mb(self) -> Mapping[str, float]:
        """Module -> the most memory that a ready copy takes on any node, 10^6 bytes, scaled to float32 weights."""
        return self._most_mb(mapped=False)

    @cached_property
    def mapped_mb(self) -> Mapping[str, float]:
        """The same of copies whose weights are mapped."""
        return self._most_mb(mapped=True)

    def _most_mb(self, *, mapped: bool) -> Mapping[str, float]:
        most: dict[str, float] = {}
        for node, reported in self._reported.items():
            profile = self._profiles.get(node)
            share = share_of(profile.dtype) if profile is not None else 1.0
            for module, report in reported.modules.items():
                if report.state == "ready" and report.mapped == mapped:
                    most[module] = max(most.get(module, 0.0), report.memory_mb / share)
        return most

    def pace(self, spec: ModuleSpec) -> Pace | None:
        """Returns the pace of a module on the nodes that have run it with its weights in memory; None if none has."""
        if spec.id not in self._paces:
            reports = [one for one in self.held.get(spec.id, {}).items() if one[1].ms > 0 and not one[1].mapped]
            measured = [(self._profiles[node], report.ms / 1000) for node, report in reports]
            self._paces[spec.id] = pace_of(spec, measured)
        return self._paces[spec.id]

    @cached_property
    def _all_senders(self) -> Senders:
        profiles = {node: self._profiles.get(node) for node in sorted(self._nodes.present)}
        return Senders({node: profile for node, profile in profiles.items() if profile is not None})

    def senders(self, spec: ModuleSpec) -> list[Sender]:
        """Returns all that `sender` chooses from: the fastest nodes that send a module's part, or its export."""
        found = self._best_of(spec, "")
        for dtype in self._export_dtypes.get(spec.class_, ()):
            found = [*found, *self._best_of(spec, dtype)]
        return found

    @cached_property
    def _export_dtypes(self) -> dict[str, list[str]]:
        """Class -> the dtypes in which present nodes without torch want its exports."""
        found: dict[str, set[str]] = {}
        for profile in (self._profiles.get(node) for node in self._nodes.present):
            for class_ in profile.exported if profile is not None else ():
                found.setdefault(class_, set()).add(profile.dtype if profile is not None else "")
        return {class_: sorted(dtypes) for class_, dtypes in found.items()}

    def _best_of(self, spec: ModuleSpec, dtype: str) -> list[Sender]:
        """Returns the fastest two senders of a part; of its export in a dtype if one is named."""
        key = (spec.id, dtype)
        if key not in self._best:
            every = self._all_senders
            self._best[key] = every.best_of_exports(spec, dtype) if dtype else every.best(spec)
        return self._best[key]

    def sender(self, spec: ModuleSpec, node: str) -> Sender | None:
        """Returns the present node with the fastest link that sends a module's part to a node; None if none does."""
        profile = self._profiles.get(node)
        of_export = profile is not None and is_served_of_export(spec, profile)
        found = self._best_of(spec, profile.dtype if profile is not None and of_export else "")
        return next((sender for sender in found if sender.node != node), None)

    def _is_current(self, node: str) -> bool:
        profile = self._profiles.get(node)
        return profile is not None and profile.boot == self._nodes.boot(node)
