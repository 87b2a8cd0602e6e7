"""Decides when plans are made and how thorough they are: lost modules are placed at once, second copies follow."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from s2m3.broker.event_loop import Loop, Timer
from s2m3.planner.plan_thread import PlanInputs, PlanInterrupted, PlanThread
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision
from s2m3.planner.site.improvement_times import ImprovementTimes
from s2m3.planner.site.placement import Fill, Placement, Solvers
from s2m3.planner.site.placer import Placer, second_copies_in_spare
from s2m3.planner.solving.second_copies import kept_second_copies
from s2m3.schemas.instance import Instance
from s2m3.schemas.settings import PlannerSettings

__all__ = ["PlanScheduler"]

#: A thorough plan follows a quick one after so many seconds, or so many times what the last thorough plan took.
_THOROUGH_AFTER_S, _REST = 0.3, 4.0


class PlanScheduler:
    """Makes plans of the newest cluster state, one after another, in a thread of their own.

    A quick plan places modules without a copy, and leaves second copies where they are. A thorough plan follows: it
    decides anew about second copies and, if asked, about better places. While changes go on, most plans are quick, so
    that the thorough plans of a large site do not delay the changes that users wait for; a change ends a thorough plan,
    but not two in a row. All methods run in the loop's thread, except `start` and `stop`.

    Args:
        loop: The planner's event loop.
        settings: The planner's settings.
        cluster: The cluster state; each plan is made of a snapshot.
        placer: Computes placements.
        may_plan: Called before each plan; without its consent none is made, and the next call decides again.
        on_plan: Called with each plan.
    """

    def __init__(
        self,
        loop: Loop,
        settings: PlannerSettings,
        cluster: ClusterState,
        placer: Placer,
        *,
        may_plan: Callable[[], bool],
        on_plan: Callable[[Placement, Decision], None],
    ) -> None:
        self._loop, self._settings = loop, settings
        self._cluster, self._placer, self._may_plan = cluster, placer, may_plan
        self._thread = PlanThread(loop, on_plan, self._on_idle)
        self._improve = self._is_improving = False
        #: whether the thorough plan that is due is to search for better places whatever it follows
        self._is_search_due = False
        #: whether the plan under way was to search and does not, as it follows plans of changes alone
        self._is_withheld = False
        self._improvement_times = ImprovementTimes()
        #: whether something changed since the snapshot of the plan under way
        self._is_outdated = False
        #: whether the next plan is to be thorough; whether the one under way is; seconds that the last one took
        self._is_thorough_due = self._is_thorough = False
        self._thorough_s = 0.0
        #: seconds that the last thorough plan of the whole site took
        self._whole_s = 0.0
        #: whether the thorough plan under way may be ended by a change, and has been; the next one is then completed
        self._is_interruptible, self._interrupted = False, threading.Event()
        #: whether the thorough plan that is due was not asked for: it follows a quick one
        self._is_follow_up = False
        self._settling: Timer | None = None
        self._follow_up: Timer | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the plan under way; does not wait for that plan."""
        self._thread.stop()

    @property
    def busy(self) -> bool:
        """Whether a plan is being made."""
        return self._thread.busy

    @property
    def has_changed(self) -> bool:
        """Whether anything changed since the last plan that looked for better places."""
        return self._improvement_times.has_changed

    def improve(self) -> None:
        """Has the next thorough plan look for better places of modules that have one.

        One that follows plans of changes alone leaves that to `improve_now`.
        """
        self._improve = True

    def improve_now(self) -> None:
        """Looks for better places, unless changes go on or that was done lately, compared with what it costs."""
        if self._improvement_times.is_due(time.monotonic(), self._whole_s):
            self._improve = self._is_search_due = True
            self.now(thorough=True, follows=True)

    def lost(self) -> None:
        """Plans at once what was lost; better places are looked for only when nothing has changed for a while.

        So a loss changes the routes that name the node, and no others, whatever was asked for a moment before. What
        somebody ordered is done all the same.
        """
        if self._is_follow_up or not self._is_thorough_due:
            self._improve = self._is_search_due = False
        self._is_improving = False
        self.now()

    def soon(self) -> None:
        """Plans after the settle time, so that several changes in a row are planned once."""
        self._improvement_times.changed(time.monotonic())
        if self._settling is None:
            self._settling = self._loop.after(self._settings.settle_s, self.now)

    def now(self, *, thorough: bool = False, follows: bool = False) -> None:
        """Plans at once; if a plan is under way, right after that.

        Args:
            thorough: Whether the plan is to be thorough.
            follows: Whether it follows a quick one, so that changes may end it.
        """
        if thorough:  # one that was ordered stays so
            self._is_follow_up = follows and (self._is_follow_up or not self._is_thorough_due)
            self._is_thorough_due = True
        if not follows:
            self._improvement_times.changed(time.monotonic())
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if not self._may_plan():
            return
        if self._thread.busy:
            self._is_outdated = True
            if self._is_interruptible and not thorough:
                self._interrupted.set()
            return
        self._is_outdated = False
        self._is_thorough, self._is_thorough_due = self._is_thorough_due, False
        # a thorough plan that follows plans of changes alone leaves the search to when nothing changes any more
        is_of_changes = self._is_follow_up and not self._is_search_due and not self._thread.is_whole_due
        self._is_withheld = self._is_thorough and self._improve and is_of_changes
        self._submit(improve=self._is_thorough and self._improve and not is_of_changes)

    def _submit(self, *, improve: bool) -> None:
        if self._follow_up is not None and self._is_thorough:
            self._follow_up.cancel()
            self._follow_up = None
        elif self._follow_up is None and not self._is_thorough:
            wait_s = max(_THOROUGH_AFTER_S, _REST * (self._whole_s if self._thread.is_whole_due else self._thorough_s))
            self._follow_up = self._loop.after(wait_s, self._plan_thoroughly)
        if self._is_thorough:
            self._improve = self._is_search_due = False
        self._is_interruptible = self._is_thorough and self._is_follow_up and not self._interrupted.is_set()
        self._is_improving = improve
        if improve:
            self._improvement_times.improved(time.monotonic())
        fill: Fill = kept_second_copies
        if self._is_thorough:
            self._interrupted.clear()
            fill = partial(second_copies_in_spare, on_step=self._look_for_interrupt)
        spare = fill if self._settings.spare else None
        self._cluster.note_steadiness(time.monotonic())
        solvers = Solvers(self._placer(improve), self._fits, spare)
        is_whole = improve or (self._is_thorough and not self._is_follow_up)  # one that was ordered
        self._thread.submit(PlanInputs(self._cluster.snapshot(), solvers, self._is_thorough, is_whole))

    def _fits(self, instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        """Places modules where some models fit, without a search for better places."""
        return self._placer(False)(instance, current)  # noqa: FBT003  # Placer's one argument

    def _look_for_interrupt(self) -> None:
        """Called in the plan's thread."""
        if self._interrupted.is_set():
            raise PlanInterrupted

    def _plan_thoroughly(self) -> None:
        self._follow_up = None
        self.now(thorough=True, follows=True)

    def _on_idle(self) -> None:
        is_completed = self._is_thorough and not self._interrupted.is_set()
        if is_completed:
            self._thorough_s = self._thread.took_s
            self._whole_s = self._thorough_s if self._thread.was_whole else self._whole_s
        elif self._is_thorough:
            self._improve = self._improve or self._is_improving
        self._is_interruptible = False
        if is_completed and self._is_withheld and self._thread.was_whole:  # it turned out to be of the whole site
            self._improve = self._is_search_due = True
            self.now(thorough=True, follows=True)
        elif self._is_outdated:
            self.now()
