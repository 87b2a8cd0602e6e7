"""Plans instances whose tasks have stand-ins: the model placed for each task, warm stand-ins, answers after a loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.rank_choice import choose_ranks
from s2m3.planner.solving.solve import Solution, first_layout
from s2m3.planner.solving.stand_ins import RankedTask, StandIns, stand_ins
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance

__all__ = ["RankedPlan", "best_models", "has_stand_ins", "plan_ranks"]


@dataclass(frozen=True, slots=True)
class RankedPlan:
    """The plan of an instance with stand-ins.

    Args:
        instance: Of the models that are placed.
        solution: The placement of these models.
        ranks: Task -> rank of its model.
        left_out: Task -> why none of its models is placed.
        warm: The stand-ins held warm in the memory that is left.
        after_loss: Device -> task -> rank that answers at once when the device is lost; None if none does.
    """

    instance: Instance
    solution: Solution
    ranks: Mapping[str, int]
    left_out: Mapping[str, NoCapacityError]
    warm: StandIns
    after_loss: Mapping[str, Mapping[str, int | None]]

    def to_json(self) -> dict[str, Any]:
        """Returns what `s2m3 plan --json` prints beside the solution."""
        return {
            "ranks": dict(self.ranks),
            "unanswered": {task: error.as_dict() for task, error in self.left_out.items()},
            "stand_ins": {"ranks": self.warm.ranks, "placement": self.warm.copies},
            "after_loss": {device: dict(ranks) for device, ranks in self.after_loss.items()},
        }


def has_stand_ins(instance: Instance) -> bool:
    """Returns whether any task has more than one model."""
    return any(task.stand_ins for task in instance.tasks)


def best_models(instance: Instance) -> Instance:
    """Returns an instance without stand-ins: each task's best model, and the modules of these alone."""
    return _of_ranks(instance, {task.id: 0 for task in instance.tasks}) if has_stand_ins(instance) else instance


def plan_ranks(instance: Instance, solve: Callable[[Instance], Solution]) -> RankedPlan:
    """Returns the plan of an instance with stand-ins: the models whose absence costs least are left out.

    Args:
        instance: The instance.
        solve: Solves an instance without stand-ins.

    Raises:
        NoCapacityError: No model of any task fits.
    """
    able = {module.id for module in instance.modules if module.seconds}
    size_mb = {module.id: module.memory_mb for module in instance.modules}
    models = {
        (task.id, rank): tuple(dict.fromkeys(step.module for step in steps))
        for task in instance.tasks
        for rank, steps in enumerate(task.ranks)
    }
    options = {
        task.id: [rank for rank in range(len(task.ranks)) if able.issuperset(models[task.id, rank])]
        for task in instance.tasks
    }
    left_out = {
        task: NoCapacityError(f"no device can run {min(set(models[task, 0]) - able)}")
        for task, ranks in options.items()
        if not ranks
    }
    options = {task: ranks for task, ranks in options.items() if ranks}

    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        try:
            first_layout(Problem(_of_ranks(instance, ranks)))
        except NoCapacityError as error:
            return error
        return None

    weights = {task.id: task.weight for task in instance.tasks if task.id in options}
    ranks, refused = choose_ranks(
        options, weights, lambda task, rank: sum(size_mb[module] for module in models[task, rank]), why_not
    )
    left_out |= refused
    if not ranks:
        raise next(iter(left_out.values()))
    placed = _of_ranks(instance, ranks)
    solution = solve(placed)
    lower = {
        task: RankedTask(rank, {one: models[task, one] for one in options[task] if one >= rank})
        for task, rank in ranks.items()
        if rank < options[task][-1]
    }
    warm = stand_ins(instance, solution.placement, lower) if lower else StandIns()
    held = {
        module: {*solution.placement.get(module, ()), *warm.copies.get(module, ())}
        for module in solution.placement.keys() | warm.copies.keys()
    }
    known = {task.id: {rank: models[task.id, rank] for rank in options.get(task.id, ())} for task in instance.tasks}
    after = {device.id: _answers_without(device.id, held, known) for device in instance.devices}
    return RankedPlan(placed, solution, ranks, left_out, warm, after)


def _of_ranks(instance: Instance, ranks: Mapping[str, int]) -> Instance:
    """Returns the instance of these models of these tasks alone."""
    tasks = tuple(
        task.model_copy(update={"steps": task.ranks[ranks[task.id]], "stand_ins": ()})
        for task in instance.tasks
        if task.id in ranks
    )
    used = {step.module for task in tasks for step in task.steps}
    modules = tuple(module for module in instance.modules if module.id in used)
    return instance.model_copy(update={"tasks": tasks, "modules": modules})


def _answers_without(
    device: str, held: Mapping[str, set[str]], models: Mapping[str, Mapping[int, tuple[str, ...]]]
) -> dict[str, int | None]:
    """Returns the best rank of each task whose modules all have a copy elsewhere; None for a task without one."""
    return {
        task: next(
            (rank for rank, modules in ranks.items() if all(held.get(module, set()) - {device} for module in modules)),
            None,
        )
        for task, ranks in models.items()
    }
