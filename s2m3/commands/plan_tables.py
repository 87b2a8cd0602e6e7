"""Tables of `s2m3 plan` for people: one plan, or plans beside each other."""

from collections.abc import Sequence

from rich.console import Console

from s2m3.commands.terminal import Listing, console
from s2m3.planner.solving.compare import Case
from s2m3.planner.solving.ranked_instance import RankedPlan
from s2m3.planner.solving.solve import Solution

__all__ = ["show_cases", "show_plan"]


def show_plan(case: Case) -> None:
    """Prints one plan: devices, tasks, and how far it may be from the optimum."""
    solution = case.solution
    if solution is None:
        return
    screen = console()
    table = Listing("device", "memory MB", "holds")
    for device in case.instance.devices:
        held = sorted(module for module, devices in solution.placement.items() if device.id in devices)
        table.add_row(
            device.id, f"{solution.memory_mb[device.id]:.0f} / {device.memory_mb:.0f}", ", ".join(held) or "-"
        )
    screen.print(table)
    energetic = any(found.energy for found in solution.tasks.values())
    table = Listing("task", "latency", *(["energy"] if energetic else []), "route")
    for task, found in solution.tasks.items():
        route = " ".join(f"{step}:{device}" for step, device in found.route.items())
        spent = [f"{found.energy.joules:.2f} J" if found.energy else "-"] if energetic else []
        table.add_row(task, f"{found.latency_s * 1000:.1f} ms", *spent, route)
    screen.print(table)
    if case.ranked is not None:
        _show_ranks(screen, case.ranked)
    screen.print(
        f"objective {solution.objective_s:.4f} s, {_proof(solution)}; "
        f"{solution.method}, {solution.solve_s * 1000:.0f} ms"
    )


def _show_ranks(screen: Console, plan: RankedPlan) -> None:
    """Prints which model of each task answers, which are warm, and which answers at once when a device is lost."""
    table = Listing("task", "rank", "warm below", *(f"without {device}" for device in plan.after_loss))
    for task in next(iter(plan.after_loss.values())):
        warm = ", ".join(map(str, plan.warm.ranks.get(task, ()))) or "-"
        after = [_rank(ranks[task]) for ranks in plan.after_loss.values()]
        table.add_row(task, _rank(plan.ranks.get(task)), warm, *after)
    screen.print(table)
    for task, error in plan.left_out.items():
        screen.print(f"{task} is not answered: {error.detail}", style="yellow")


def _rank(rank: int | None) -> str:
    return "none" if rank is None else str(rank)


def _proof(solution: Solution) -> str:
    if solution.proven_optimal:
        return "proven optimal"
    gap = solution.objective_s - solution.lower_bound_s
    return f"at most {100 * gap / max(solution.objective_s, 1e-9):.1f} % above the best"


def show_cases(found: Sequence[Case]) -> None:
    """Prints a row for each case, with its objective as a multiple of the best of its swept values."""
    paths = list(found[0].values)
    solved = [case for case in found if case.solution is not None]
    energetic = any(task.energy for case in solved for task in _plan(case).tasks.values())
    numbers = ("objective", "x best", "fullest MB", "all MB", *(["J a round"] if energetic else []))
    table = Listing(*paths, "method", *numbers, "", numbers=numbers)
    for case in found:
        head = [*(str(case.values[path]) for path in paths), case.method]
        if case.solution is None:
            table.add_row(*head, *(["-"] * (5 if energetic else 4)), case.error.detail if case.error else "")
            continue
        plan = case.solution
        best = min(_plan(other).objective_s for other in solved if other.values == case.values)
        times = plan.objective_s / best if best > 0 else 1.0
        memory = plan.memory_mb.values()
        row = [f"{plan.objective_s:.4f} s", f"{times:.3f}", f"{max(memory):.0f}", f"{sum(memory):.0f}"]
        table.add_row(*head, *row, *([_joules(plan)] if energetic else []), "proven" if plan.proven_optimal else "")
    console().print(table)


def _plan(case: Case) -> Solution:
    if case.solution is None:
        raise AssertionError
    return case.solution


def _joules(plan: Solution) -> str:
    """Returns the joules of one request of each task, or a dash if a device states no power."""
    energies = [task.energy for task in plan.tasks.values()]
    return "-" if None in energies else f"{sum(energy.joules for energy in energies if energy):.2f}"
