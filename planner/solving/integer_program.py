"""The integer program of a placement, in HiGHS: builds it, solves it, reads copies off it. The only user of highspy."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.planner.solving.route_columns import TaskRoutes
from s2m3.schemas import extras

__all__ = ["Program", "Relaxed", "Whole", "is_available", "require"]

#: HiGHS's tolerances are absolute (1e-7); objectives are scaled to about this, so that they are small beside it.
_SCALED_TO = 1000.0
#: A variable that is whole by HiGHS's tolerance is on one side of this or the other.
_CHOSEN = 0.5


def is_available() -> bool:
    """Whether HiGHS is installed."""
    return not extras.missing("exact")


def require() -> None:
    """Checks that HiGHS is installed.

    Raises:
        NotInstalledError: It is not; the text says what to install.
    """
    extras.require("exact", "the exact search")


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The linear relaxation's optimum: a bound in seconds, and what one more of each variable adds to it."""

    bound_s: float
    x_reduced_s: Floats
    y_reduced_s: list[Floats]


@dataclass(frozen=True, slots=True)
class Whole:
    """What the integer search came to: a bound in seconds, copies if any were found, whether it ran to its end."""

    bound_s: float
    copies: dict[int, list[int]] | None
    is_finished: bool


class Program:
    """Variables x[module, device] in {0, 1} and y[task, route] >= 0; minimise the y's weight x latency.

    Each module has 1 to max_replicas copies; the copies on a device fit; each task has one route; a route needs a copy
    of each of its steps' modules where it runs them. With x whole, a task's y only choose among the routes that x
    allows, so y need not be whole.

    Args:
        problem: What is placed.
        tasks: The routes to choose from. None at all: any placement that fits will do.
        objective_s: About what the optimum costs, for scaling.

    Raises:
        S2M3Error: highspy is not installed.
    """

    def __init__(self, problem: Problem, tasks: list[TaskRoutes], objective_s: float) -> None:
        require()
        self._problem = problem
        self._tasks = tasks
        self._scale = _SCALED_TO / objective_s if 0 < objective_s < np.inf else 1.0
        able = [problem.able(m) for m in range(len(problem.modules))]
        self.x_module: Ints = np.repeat(np.arange(len(able)), [len(devices) for devices in able])
        self.x_device: Ints = np.concatenate([*able, np.zeros(0, dtype=np.intp)])
        self._at = np.full((len(able), len(problem.device_ids)), -1, dtype=np.intp)
        self._at[self.x_module, self.x_device] = np.arange(len(self.x_module))
        self._excluded: list[Ints] = []

    def exclude(self, copies: dict[int, list[int]]) -> None:
        """Forbids a choice of copies that fits by HiGHS's tolerance but not by ours."""
        self._excluded.append(np.array([self._at[m, d] for m, devices in copies.items() for d in devices]))

    def relax(self, seconds: float) -> Relaxed | None:
        """Returns the optimum of the linear relaxation; None if time ran out or there is none."""
        solver = self._solver(seconds, whole=False)
        solver.run()
        if solver.modelStatusToString(solver.getModelStatus()) != "Optimal":
            return None
        reduced = np.asarray(solver.getSolution().col_dual) / self._scale
        ends = np.cumsum([len(self.x_module), *(len(some.routes) for some in self._tasks)])
        parts = np.split(reduced, ends[:-1])
        return Relaxed(solver.getInfo().objective_function_value / self._scale, parts[0], parts[1:])

    def solve(self, seconds: float, start: dict[int, list[int]] | None = None) -> Whole:
        """Searches for the best copies.

        Args:
            seconds: When to stop.
            start: Copies known, to begin from.
        """
        import highspy  # noqa: PLC0415  # an optional extra

        solver = self._solver(seconds, whole=True)
        if start is not None:
            chosen = np.array([self._at[m, d] for m, devices in start.items() for d in devices], dtype=np.int32)
            solver.setSolution(len(chosen), chosen, np.ones(len(chosen)))
        solver.run()
        status = solver.modelStatusToString(solver.getModelStatus())
        info = solver.getInfo()
        if status == "Infeasible":
            return Whole(np.inf, None, is_finished=True)
        bound_s = info.mip_dual_bound / self._scale
        copies = None
        if (
            np.isfinite(info.objective_function_value)
            and info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        ):
            value = np.asarray(solver.getSolution().col_value)[: len(self.x_module)]
            copies = {m: self.x_device[(self.x_module == m) & (value > _CHOSEN)].tolist() for m in range(len(self._at))}
        return Whole(bound_s, copies, is_finished=status == "Optimal")

    def _solver(self, seconds: float, *, whole: bool) -> Any:
        import highspy  # noqa: PLC0415  # an optional extra

        class Quiet(highspy.Highs):  # type: ignore[misc]  # it has no types here
            """HiGHS greets on stdout while it is made, before it can be told not to: told here, just before."""

            def enableCallbacks(self) -> None:  # noqa: N802  # the name is theirs
                self.setOptionValue("output_flag", False)  # noqa: FBT003
                super().enableCallbacks()

        solver = Quiet()
        # Presolve, run again at each restart, takes longer than it saves here: routes are already sifted.
        options = {"threads": 1, "presolve": "off", "time_limit": max(0.01, seconds)}
        for name, value in {**options, "mip_rel_gap": 0.0, "mip_abs_gap": 1e-7}.items():
            solver.setOptionValue(name, value)
        rows, columns, values, lower, upper = self._matrix()
        count = len(self.x_module) + sum(len(some.routes) for some in self._tasks)
        order = np.argsort(columns, kind="stable")
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = count, len(lower)
        program.col_cost_ = self._scale * np.concatenate(
            [np.zeros(len(self.x_module)), *(some.costs_s for some in self._tasks)]
        )
        program.col_lower_, program.col_upper_ = np.zeros(count), np.ones(count)
        program.row_lower_, program.row_upper_ = lower, upper
        program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        program.a_matrix_.start_ = np.searchsorted(columns[order], np.arange(count + 1))
        program.a_matrix_.index_, program.a_matrix_.value_ = rows[order], values[order]
        if whole:
            kinds = [highspy.HighsVarType.kInteger] * len(self.x_module)
            program.integrality_ = kinds + [highspy.HighsVarType.kContinuous] * (count - len(kinds))
        solver.passModel(program)
        return solver

    def _matrix(self) -> tuple[Ints, Ints, Floats, Floats, Floats]:
        """The rows, as (row, column, value) and their limits: copies, memory, one route each, links, exclusions."""
        problem, xs = self._problem, np.arange(len(self.x_module))
        modules, devices, tasks = len(self._at), len(problem.device_ids), len(self._tasks)
        size = np.array(problem.size_mb)[self.x_module]
        parts = [(self.x_module, xs, np.ones(len(xs))), (modules + self.x_device, xs, size)]
        lower = [np.ones(modules), np.full(devices, -np.inf), np.ones(tasks)]
        upper = [np.full(modules, float(problem.max_replicas)), problem.memory_mb, np.ones(tasks)]
        row, column = modules + devices + tasks, len(xs)
        for t, some in enumerate(self._tasks):
            ys = column + np.arange(len(some.routes))
            column += len(ys)
            parts.append((np.full(len(ys), modules + devices + t), ys, np.ones(len(ys))))
            for s, module in enumerate(some.task.modules):
                used, which = np.unique(some.routes[:, s], return_inverse=True)
                parts.append((row + which, ys, np.ones(len(ys))))
                parts.append((row + np.arange(len(used)), self._at[module, used], -np.ones(len(used))))
                row += len(used)
                lower.append(np.full(len(used), -np.inf))
                upper.append(np.zeros(len(used)))
        for chosen in self._excluded:
            parts.append((np.full(len(chosen), row), chosen, np.ones(len(chosen))))
            row += 1
            lower.append(np.array([-np.inf]))
            upper.append(np.array([len(chosen) - 1.0]))
        rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        return rows, columns, values, np.concatenate(lower), np.concatenate(upper)
