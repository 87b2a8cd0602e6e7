"""Routes of stand-ins: a model's steps under names of their own. Pure."""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.messages import ErrorBody, RankRoute, RouteStep
from s2m3.schemas.specs import ModelSpec

__all__ = ["rank_route", "step_name"]


def step_name(step: str, rank: int) -> str:
    """Returns the name of a model's step in a task: a stand-in's is unlike those of the models above it.

    Agents join the inputs of a step by request and name, from all attempts: a request that goes down a rank must not
    be joined with inputs for another model.
    """
    return step if rank == 0 else f"{step}-rank{rank}"


def rank_route(
    model: ModelSpec,
    rank: int,
    steps: Mapping[str, RouteStep],
    *,
    fixed: Mapping[str, Any],
    threshold: float | None,
    error: ErrorBody | None,
) -> RankRoute:
    """Returns the route of a task's model; `steps` have the names that the model gives them."""
    named = {
        step_name(name, rank): step.model_copy(
            update={"inputs": {port: _named(ref, rank) for port, ref in step.inputs.items()}}
        )
        for name, step in steps.items()
    }
    return RankRoute(
        model=model.id,
        inputs=model.inputs,
        fixed=dict(fixed),
        answer=model.answer,
        threshold=threshold,
        steps=named,
        error=error,
    )


def _named(ref: str, rank: int) -> str:
    step, _, output = ref.partition(".")
    return ref if step == "input" else f"{step_name(step, rank)}.{output}"
