"""The integer program of a placement for HiGHS: builds and solves it, and reads copies off. The only highspy import."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.planner.solving.route_columns import TaskRoutes
from s2m3.schemas import extras

__all__ = ["IntegerSolution", "Program", "Relaxed", "is_available", "require"]

#: HiGHS's tolerances are absolute (1e-7): objectives are scaled to about this value, beside which they are negligible.
_SCALED_TO = 1000.0
#: A variable that is integral within HiGHS's tolerance counts as 1 above this value, as 0 below.
_CHOSEN = 0.5


def is_available() -> bool:
    """Whether HiGHS is installed."""
    return not extras.missing("exact")


def require() -> None:
    """Checks that HiGHS is installed.

    Raises:
        NotInstalledError: HiGHS is not installed; the text says how to install it.
    """
    extras.require("exact", "the exact search")


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The optimum of the linear relaxation: a bound, and the reduced cost of every variable, seconds.

    `x_reduced_s` is [copies], `y_reduced_s` one array [routes] per task.
    """

    bound_s: float
    x_reduced_s: Floats
    y_reduced_s: list[Floats]


@dataclass(frozen=True, slots=True)
class IntegerSolution:
    """The result of branch and bound: a bound in seconds, copies if any were found, and whether the search finished."""

    bound_s: float
    copies: dict[int, list[int]] | None
    is_finished: bool


class Program:
    """Variables x[module, device] in {0, 1} and y[task, route] >= 0; minimises the sum of y x weight x latency.

    Constraints: each module has 1 to max_replicas copies; the copies on a device fit its memory; each task has one
    route; a route needs a copy of each step's module on the step's device. Once x is integral, the y of a task only
    choose among the routes that x allows, so y can be continuous.

    Args:
        problem: The problem to place.
        tasks: The routes of each task to choose from; an empty list asks for any placement that fits.
        objective_s: Approximate objective of the optimum, seconds; used for scaling.

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
        """Forbids a set of copies that fits within HiGHS's tolerance but not exactly."""
        self._excluded.append(np.array([self._at[m, d] for m, devices in copies.items() for d in devices]))

    def relax(self, seconds: float) -> Relaxed | None:
        """Returns the optimum of the linear relaxation; None if time ran out or no solution exists."""
        solver = self._build_solver(seconds, whole=False)
        solver.run()
        if solver.modelStatusToString(solver.getModelStatus()) != "Optimal":
            return None
        reduced = np.asarray(solver.getSolution().col_dual) / self._scale
        ends = np.cumsum([len(self.x_module), *(len(columns_of_task.routes) for columns_of_task in self._tasks)])
        parts = np.split(reduced, ends[:-1])
        return Relaxed(solver.getInfo().objective_function_value / self._scale, parts[0], parts[1:])

    def solve(self, seconds: float, start: dict[int, list[int]] | None = None) -> IntegerSolution:
        """Searches for the best copies by branch and bound.

        Args:
            seconds: Time limit.
            start: A known placement, module -> devices, as the first incumbent.
        """
        import highspy  # noqa: PLC0415  # an optional extra

        solver = self._build_solver(seconds, whole=True)
        if start is not None:
            chosen = np.array([self._at[m, d] for m, devices in start.items() for d in devices], dtype=np.int32)
            solver.setSolution(len(chosen), chosen, np.ones(len(chosen)))
        solver.run()
        status = solver.modelStatusToString(solver.getModelStatus())
        info = solver.getInfo()
        if status == "Infeasible":
            return IntegerSolution(np.inf, None, is_finished=True)
        bound_s = info.mip_dual_bound / self._scale
        copies = None
        if (
            np.isfinite(info.objective_function_value)
            and info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        ):
            value = np.asarray(solver.getSolution().col_value)[: len(self.x_module)]
            copies = {m: self.x_device[(self.x_module == m) & (value > _CHOSEN)].tolist() for m in range(len(self._at))}
        return IntegerSolution(bound_s, copies, is_finished=status == "Optimal")

    def _build_solver(self, seconds: float, *, whole: bool) -> Any:
        import highspy  # noqa: PLC0415  # an optional extra

        class Quiet(highspy.Highs):  # type: ignore[misc]  # it has no types here
            """HiGHS prints a banner from its constructor; this hook is the first place where output can be disabled."""

            def enableCallbacks(self) -> None:  # noqa: N802  # highspy's name
                self.setOptionValue("output_flag", False)  # noqa: FBT003
                super().enableCallbacks()

        solver = Quiet()
        # Presolve runs again at each restart and takes longer than it saves: routes are already filtered.
        options = {"threads": 1, "presolve": "off", "time_limit": max(0.01, seconds)}
        for name, value in {**options, "mip_rel_gap": 0.0, "mip_abs_gap": 1e-7}.items():
            solver.setOptionValue(name, value)
        rows, columns, values, lower, upper = self._matrix()
        count = len(self.x_module) + sum(len(columns_of_task.routes) for columns_of_task in self._tasks)
        order = np.argsort(columns, kind="stable")
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = count, len(lower)
        program.col_cost_ = self._scale * np.concatenate(
            [np.zeros(len(self.x_module)), *(columns_of_task.costs_s for columns_of_task in self._tasks)]
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
        """Returns the constraint matrix as (rows, columns, values, lower limits, upper limits).

        The rows are, in order: copies per module, memory per device, one route per task, a copy for each routed step,
        excluded placements.
        """
        problem, xs = self._problem, np.arange(len(self.x_module))
        modules, devices, tasks = len(self._at), len(problem.device_ids), len(self._tasks)
        size = np.array(problem.size_mb)[self.x_module]
        parts = [(self.x_module, xs, np.ones(len(xs))), (modules + self.x_device, xs, size)]
        lower = [np.ones(modules), np.full(devices, -np.inf), np.ones(tasks)]
        upper = [np.full(modules, float(problem.max_replicas)), problem.memory_mb, np.ones(tasks)]
        row, column = modules + devices + tasks, len(xs)
        for t, columns_of_task in enumerate(self._tasks):
            ys = column + np.arange(len(columns_of_task.routes))
            column += len(ys)
            parts.append((np.full(len(ys), modules + devices + t), ys, np.ones(len(ys))))
            for s, module in enumerate(columns_of_task.task.modules):
                used, which = np.unique(columns_of_task.routes[:, s], return_inverse=True)
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
