"""Chooses the models of tasks where not all best ones fit, and says why others do not. Pure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from s2m3.planner.site.placement_instance import SiteInstances
from s2m3.planner.solving.fitting import Fitting
from s2m3.planner.solving.rank_choice import choose_ranks
from s2m3.schemas.definitions import ModelSpec
from s2m3.schemas.errors import NoCapacityError, S2M3Error
from s2m3.schemas.instance import Instance

__all__ = ["ModelChoice", "Solve"]

#: (instance, current placement) -> placement, module -> devices. Raises NoCapacityError.
Solve = Callable[[Instance, Mapping[str, list[str]]], Mapping[str, list[str]]]
#: task -> rank
Ranks = Mapping[str, int]


class ModelChoice:
    """The choice of models of one plan.

    Whether models fit is asked of `fitting`, by memory alone, so that a question costs what its modules cost. Where a
    task has stand-ins, there must also be a way from the model that answers it now.

    Args:
        nodes: The site.
        options: Task -> ranks that some nodes can load.
        fits: Places modules where the packing of `fitting` leaves no such way.
        fitting: Whether modules fit together; it knows the modules of all options.
        placed: Places the models of some ranks by a function: returns module -> nodes. Raises NoCapacityError.
    """

    def __init__(
        self,
        nodes: SiteInstances,
        options: Mapping[str, Sequence[int]],
        fits: Solve,
        fitting: Fitting,
        placed: Callable[[Ranks, Solve], Mapping[str, list[str]]],
    ) -> None:
        self._nodes, self._options = nodes, options
        self._fits, self._fitting, self._placed = fits, fitting, placed
        self._packing: Mapping[str, list[str]] = {}
        #: the models that were last found to fit, and their modules
        self._fitted: Ranks = {}
        self._modules = frozenset[str]()

    def made(self, missed: Mapping[str, dict[int, S2M3Error]]) -> tuple[dict[str, int], dict[str, NoCapacityError]]:
        """Returns the ranks to place, and why tasks get none; adds to `missed` why tasks miss better ranks."""
        nodes, options = self._nodes, self._options
        order = sorted(options, key=partial(_priority, nodes))
        choices, weights = {task: options[task] for task in order}, dict.fromkeys(order, 1.0)
        ranks, left_out = choose_ranks(choices, weights, nodes.size_mb, self._why_not)
        self._why_not(ranks)
        packing = self._packing
        for task, rank in ranks.items():
            for better in (one for one in options[task] if one < rank):
                beside = NoCapacityError(f"{nodes.model(task, better).id} does not fit beside what other tasks need")
                missed[task][better] = self._why_not({**ranks, task: better}) or beside
        self._packing = packing
        return ranks, left_out

    def packing(self, _instance: Instance, _current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        """Returns the placement by which the chosen models were found to fit: a `Solve`."""
        return self._packing

    def _why_not(self, ranks: Ranks) -> NoCapacityError | None:
        """Returns why the models of these ranks do not fit together; None if they do."""
        modules = self._modules_of(ranks)
        error = self._fitting.why_not(modules)
        if error is not None:
            return error
        self._packing = self._fitting.placement
        self._fitted, self._modules = ranks, modules
        if not any(self._nodes.cluster.tasks[task].stand_ins for task in ranks):
            return None
        for solve in (self.packing, self._fits):
            try:
                self._packing = self._placed(ranks, solve)
            except NoCapacityError as no_way:
                error = no_way
            else:
                return None
        return error

    def _modules_of(self, ranks: Ranks) -> frozenset[str]:
        more = ranks.items() - self._fitted.items()
        if len(more) + len(self._fitted) == len(ranks):  # those that fitted, and some more
            return self._modules | self._nodes.modules_of(dict(more))
        return self._nodes.modules_of(ranks)


def _priority(nodes: SiteInstances, task: str) -> tuple[bool, int, bool, str]:
    """Returns the key by which tasks get models: those placed now first, by rank; then names."""
    models = [model for model in nodes.cluster.ranks_of(task) if isinstance(model, ModelSpec)]
    placed = [all(nodes.current.get(module) for module in model.module_ids) for model in models]
    served = any(nodes.cluster.is_ready(model) for model in models)
    best = placed.index(True) if True in placed else len(placed)
    return not (served or any(placed)), best, not served, task
