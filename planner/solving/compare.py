"""Plans beside each other: every combination of swept values, by every method. Pure but for the clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from s2m3.planner.solving.baselines import check_method, solve_by
from s2m3.planner.solving.ranked_instance import RankedPlan, has_stand_ins, plan_ranks
from s2m3.planner.solving.solve import Solution
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance, parse_instance
from s2m3.schemas.instance_paths import Sweep, with_value

__all__ = ["Case", "cases"]


@dataclass(frozen=True, slots=True)
class Case:
    """One plan of a comparison.

    Args:
        values: The swept values, path -> value.
        method: The method's name.
        instance: The instance that was placed.
        solution: The plan; None if the modules do not fit.
        error: Why there is no plan.
        ranked: Where tasks have stand-ins: which models are placed and held warm.
    """

    values: Mapping[str, Any]
    method: str
    instance: Instance
    solution: Solution | None
    error: NoCapacityError | None = None
    ranked: RankedPlan | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the case as `s2m3 plan --json` prints it."""
        head: dict[str, Any] = {"values": dict(self.values), "method": self.method}
        if self.solution is None:
            return head | {"error": self.error.as_dict() if self.error else {}}
        return {**self.solution.to_json(), **(self.ranked.to_json() if self.ranked else {}), **head}


def cases(
    document: Mapping[str, Any],
    where: str,
    *,
    methods: Sequence[str],
    sweeps: Sequence[Sweep] = (),
    budget_s: float | None = None,
    seed: int = 0,
) -> Iterator[Case]:
    """Yields a plan for each combination of swept values and each method; what does not fit has an error.

    Args:
        document: The instance as JSON values.
        where: The document's name in errors.
        methods: Names as in `solve_by`.
        sweeps: Paths and their values.
        budget_s: Time budget of each `auto` and `exact`, seconds; None takes the method's own.
        seed: Of random placements.

    Raises:
        BadInputError: A path, a value or a method is wrong; raised before anything is solved.
    """
    points: list[tuple[dict[str, Any], Instance]] = []
    for values in product(*(values for _, values in sweeps)):
        at = dict(zip((path for path, _ in sweeps), values, strict=True))
        changed = dict(document)
        for path, value in at.items():
            changed = with_value(changed, path, value)
        label = where + "".join(f", {path}={value}" for path, value in at.items())
        points.append((at, parse_instance(changed, label)))
    for _, instance in points:
        for method in methods:
            check_method(method, instance)
    for at, instance in points:
        for method in methods:
            try:
                yield _case(at, method, instance, partial(solve_by, name=method, budget_s=budget_s, seed=seed))
            except NoCapacityError as error:
                yield Case(at, method, instance, None, error)


def _case(values: Mapping[str, Any], method: str, instance: Instance, solve: Callable[[Instance], Solution]) -> Case:
    """Returns a plan; of an instance with stand-ins the case's instance has the models that are placed."""
    if not has_stand_ins(instance):
        return Case(values, method, instance, solve(instance))
    ranked = plan_ranks(instance, solve)
    return Case(values, method, ranked.instance, ranked.solution, ranked=ranked)
