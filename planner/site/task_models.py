"""The models of the desired tasks: definitions in files and definitions embedded in tasks, as one catalogue. Pure."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property

from s2m3.planner.site.stand_in_inputs import why_not_stand_in
from s2m3.schemas.definitions import Catalogue, ModelSpec, with_definition
from s2m3.schemas.errors import BadDefinitionError, BadInputError, S2M3Error, UnknownTaskError
from s2m3.schemas.messages import TaskSpec

__all__ = ["TaskModels"]


class TaskModels:
    """Each task's models, the best first; equal modules are one.

    Args:
        in_files: The definitions in files.
        tasks: The desired tasks.
    """

    def __init__(self, in_files: Catalogue, tasks: Mapping[str, TaskSpec]) -> None:
        #: all definitions
        self.catalogue = in_files
        #: (task, rank) -> the model of its embedded definition, or why that is invalid
        self._embedded: dict[tuple[str, int], ModelSpec | S2M3Error] = {}
        self._tasks = dict(tasks)
        #: task -> its document, and its models
        self._ranks: dict[str, tuple[TaskSpec, tuple[ModelSpec | S2M3Error, ...]]] = {}
        for task, spec in sorted(tasks.items()):
            for rank, one in enumerate(spec.ranks):
                if (why := spec.unreadable.get(rank)) is not None:
                    self._embedded[task, rank] = BadDefinitionError(f"the planner cannot read it: {why}")
                elif one.definition is not None:
                    try:
                        self.catalogue, self._embedded[task, rank] = with_definition(self.catalogue, one.definition)
                    except BadInputError as error:
                        self._embedded[task, rank] = error

    @cached_property
    def users(self) -> Mapping[str, Collection[str]]:
        """The tasks that use each module, with any of their models."""
        found: dict[str, list[str]] = defaultdict(list)
        for task, spec in self._tasks.items():
            models = [model for model in self.ranks(task, spec) if isinstance(model, ModelSpec)]
            for module in dict.fromkeys(module for model in models for module in model.module_ids):
                found[module].append(task)
        return found

    def ranks(self, task: str, spec: TaskSpec) -> tuple[ModelSpec | S2M3Error, ...]:
        """Returns a task's models, the best first; in the place of one that cannot be used, the reason."""
        known = self._ranks.get(task)
        if known is None or known[0] is not spec:
            known = self._ranks[task] = spec, self._found(task, spec)
        return known[1]

    def _found(self, task: str, spec: TaskSpec) -> tuple[ModelSpec | S2M3Error, ...]:
        found = [self._find(task, rank, one.model) for rank, one in enumerate(spec.ranks)]
        best = found[0]
        if isinstance(best, ModelSpec):
            found[1:] = [self._checked(best, model, spec, rank) for rank, model in enumerate(found[1:], start=1)]
        return tuple(found)

    def _checked(
        self, best: ModelSpec, model: ModelSpec | S2M3Error, spec: TaskSpec, rank: int
    ) -> ModelSpec | S2M3Error:
        """Returns a stand-in, or the reason why the model cannot be one."""
        if isinstance(model, S2M3Error):
            return model
        own = spec.ranks[rank].inputs
        why_not = why_not_stand_in(best, model, self.catalogue.modules, own=own, defaults=spec.inputs)
        return model if why_not is None else BadInputError(why_not)

    def _find(self, task: str, rank: int, name: str) -> ModelSpec | S2M3Error:
        found = self._embedded.get((task, rank)) or self.catalogue.models.get(name)
        if found is None:
            known = ", ".join(sorted(self.catalogue.models))
            return UnknownTaskError(f"task {task} wants the model {name!r}; known: {known}")
        return found
