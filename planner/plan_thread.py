"""Computes placements beside the loop that keeps the planner's connection: one thread, one computation at a time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import structlog

from s2m3.broker import metrics
from s2m3.broker.event_loop import Loop
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision
from s2m3.planner.site.placement import Placement, Solvers
from s2m3.planner.site.replanner import Replanner

__all__ = ["PlanInputs", "PlanInterrupted", "PlanThread"]

_log = structlog.get_logger(__name__)


class PlanInterrupted(Exception):  # noqa: N818  # nothing went wrong
    """Raised while a thorough plan is made, to end it: a change of the site should not wait for the plan."""


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """The inputs of a plan: a snapshot of the site, and the functions that place modules and further copies.

    Args:
        snapshot: The site.
        solvers: The functions.
        is_thorough: Whether the functions decide anew about second copies.
        is_whole: Whether the plan has to be of the whole site.
    """

    snapshot: ClusterState
    solvers: Solvers
    is_thorough: bool = False
    is_whole: bool = False


class PlanThread:
    """Makes plans one after another. `submit` and `busy` belong to the loop's thread.

    Args:
        loop: The loop that gets the plans.
        on_plan: Called in the loop's thread with each plan.
        on_idle: Called in the loop's thread after each plan, also after one that ended with an error, which is logged.
    """

    def __init__(
        self, loop: Loop, on_plan: Callable[[Placement, Decision], None], on_idle: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._on_plan, self._on_idle = on_plan, on_idle
        self._queue: SimpleQueue[PlanInputs | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="plan", daemon=True)
        self._replanner = Replanner()
        self.busy = False
        #: whether the last plan was of the whole site; whether the next thorough one has to be
        self.was_whole = self.is_whole_due = True
        #: seconds that the last plan took
        self.took_s = 0.0
        #: task without a model in the last plan -> code of its error, which was logged
        self._logged: dict[str, str] = {}

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the plan under way; does not wait for that plan."""
        self._queue.put(None)

    def submit(self, inputs: PlanInputs) -> None:
        """Has a plan made."""
        self.busy = True
        self._queue.put(inputs)

    def _run(self) -> None:
        while (inputs := self._queue.get()) is not None:
            plan: tuple[Placement, Decision] | None = None
            began = time.monotonic()
            try:
                with metrics.PLAN_SECONDS.time():
                    plan = self._replanner.plan(
                        inputs.snapshot,
                        inputs.solvers,
                        time.monotonic(),
                        thorough=inputs.is_thorough,
                        whole=inputs.is_whole,
                    )
            except PlanInterrupted:
                _log.debug("plan_interrupted")
            except Exception:  # noqa: BLE001  # the thread's one broad except: an error in a plan must not end planning
                _log.exception("plan_failed")
                self._replanner = Replanner()  # the next plan is of the whole site
            self._loop.call(partial(self._finish, plan, time.monotonic() - began))

    def _finish(self, plan: tuple[Placement, Decision] | None, took_s: float) -> None:
        self.busy, self.took_s = False, took_s
        self.was_whole, self.is_whole_due = self._replanner.was_whole, self._replanner.is_whole_due
        if plan is not None:
            self._log_errors(plan[0])
            self._on_plan(*plan)
        self._on_idle()

    def _log_errors(self, placement: Placement) -> None:
        """Logs each task that is without a model for another reason than in the last plan."""
        codes = {task: error.code for task, error in placement.errors.items()}
        for task in [task for task, code in codes.items() if self._logged.get(task) != code]:
            _log.warning("task_not_placed", task=task, error=str(placement.errors[task]))
        self._logged = codes
