"""The models of `s2m3 task add --or`: reads them like the first model, and refuses those that cannot stand in."""

from collections.abc import Mapping
from typing import Any

from s2m3.planner.site.task_models import TaskModels
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import S2M3Error, UnknownTaskError, error_from_code
from s2m3.schemas.messages import RouteDoc, StandIn, TaskSpec
from s2m3.schemas.specs import Definition, ModelSpec

__all__ = ["check_stand_ins", "refused_model", "stand_ins_of"]


def stand_ins_of(models: Mapping[str, Definition | None], values: Mapping[str, Any]) -> list[StandIn]:
    """Returns the further models of a task.

    Args:
        models: Id or folder -> the definition of a checkpoint; None for the id of a model.
        values: Values of inputs that the task's own do not fit.
    """
    return [
        StandIn(model=found.model.id if found else name, definition=found, inputs=dict(values))
        for name, found in models.items()
    ]


def check_stand_ins(name: str, spec: TaskSpec) -> None:
    """Checks that each further model of a task can stand in for the first one.

    A model that only the planner's own files define is checked by the planner (`refused_model`).

    Raises:
        BadInputError: A model cannot; the text says which input it lacks, or how its answer differs.
    """
    models = TaskModels(shipped_catalogue(), {name: spec}).ranks(name, spec)
    for model in models[1:] if isinstance(models[0], ModelSpec) else ():
        if isinstance(model, S2M3Error) and not isinstance(model, UnknownTaskError):
            raise model


def refused_model(doc: RouteDoc) -> S2M3Error | None:
    """Returns the reason why the planner cannot use one of a task's models; None if it can use each."""
    errors = (one.error for one in doc.ranks if one.error is not None and not one.steps)
    return next((error_from_code(error.code, error.detail) for error in errors), None)
