"""Makes one plan after another: of what has changed since the last one where that is enough, else of the whole site."""

from dataclasses import replace

from s2m3.planner.site.awake import with_wanted_sleepers
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision, decide
from s2m3.planner.site.incremental_placement import Changes, LastPlan, changes_since, place_changes
from s2m3.planner.site.known_routes import KnownRoutes
from s2m3.planner.site.placement import Placement, Solvers, place
from s2m3.planner.solving.exact import SMALL

__all__ = ["Replanner"]


class Replanner:
    """Makes plans of snapshots of one site, in one thread. Pure but for the state that it keeps from plan to plan.

    A quick plan places again what changed since the last plan; a thorough one what changed since the last thorough one.

    Args:
        least: Modules x usable nodes up to which every plan is of the whole site: that takes milliseconds, and the
            worth of second copies is counted under the load of all tasks.
    """

    def __init__(self, least: int = SMALL) -> None:
        self._least = least
        self._last: LastPlan | None = None
        self._routes = KnownRoutes()
        #: the modules placed again by quick plans since the last thorough plan
        self._placed_quickly = frozenset[str]()
        #: whether the next thorough plan has to be of the whole site: a quick one was
        self.is_whole_due = True
        #: whether the last plan was of the whole site
        self.was_whole = True

    def plan(
        self, snapshot: ClusterState, solvers: Solvers, now: float, *, thorough: bool = False, whole: bool = False
    ) -> tuple[Placement, Decision]:
        """Returns the next plan.

        Args:
            snapshot: The site; it must not change any more.
            solvers: Place modules.
            now: Monotonic seconds.
            thorough: Whether `solvers` decide anew about second copies.
            whole: Whether the plan has to be of the whole site.
        """
        with snapshot.indexed():
            changes = None if whole or (thorough and self.is_whole_due) else self._changes(snapshot, now)
            placement = None
            if changes is not None and self._last is not None:
                if thorough:
                    changes = replace(changes, modules=changes.modules | self._placed_quickly)
                placement = place_changes(self._last, snapshot, changes, solvers, now)
            self.was_whole = placement is None
            if placement is None:
                placement = place(snapshot, solvers.solve, now, solvers.fill, solvers.fits)
                placement = with_wanted_sleepers(snapshot, placement, solvers.fits, now)
            decision = decide(snapshot, placement, now, self._routes)
            self._last = LastPlan(snapshot, placement, snapshot.usable())
        if thorough or self.was_whole:
            self._placed_quickly = frozenset()
            self.is_whole_due = self.was_whole and not thorough
        elif changes is not None:
            self._placed_quickly |= changes.modules
        return placement, decision

    def _changes(self, snapshot: ClusterState, now: float) -> Changes | None:
        last = self._last
        if last is None or len(last.placement.modules) * len(snapshot.usable()) <= self._least:
            return None
        return changes_since(last, snapshot, now)
