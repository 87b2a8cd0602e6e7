"""Checks whether a model can stand in for another: the source of each of its inputs, the kind of its answer. Pure."""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.specs import ModelSpec, ModuleSpec
from s2m3.schemas.wire.plain import read_inputs
from s2m3.schemas.wire.values import Kind

__all__ = ["fixed_inputs", "why_not_stand_in"]

#: (kind that requests give, kind that a model takes): the value is used as it is, or alone in a list.
_ALSO: frozenset[tuple[Kind, Kind]] = frozenset({("text", "chat"), ("image", "images")})


def fixed_inputs(
    best: Mapping[str, Kind], model: Mapping[str, Kind], own: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the inputs of a stand-in that do not come from the request -> their value; without one if there is none.

    Args:
        best: Input name -> kind of the task's best model, which is what requests give.
        model: Input name -> kind of the stand-in.
        own: The stand-in's values, of the task.
        defaults: The task's default inputs. A default that the best model can read is not used for the stand-in.
    """
    values = {name: value for name, value in defaults.items() if name not in best or not _reads(best[name], value)}
    values |= own
    return {name: values[name] for name in _not_given(best, model) if name in values}


def why_not_stand_in(
    best: ModelSpec,
    model: ModelSpec,
    modules: Mapping[str, ModuleSpec],
    *,
    own: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> str | None:
    """Returns why a model cannot stand in for a task's best one; None if it can.

    Inputs of the best model that the stand-in does not take are left out. Inputs of the stand-in that requests do not
    give need a value. The first outputs, which are the answer, must be of one kind.

    Args:
        best: The task's best model.
        model: The stand-in.
        modules: All modules, by id.
        own: The stand-in's values of inputs, of the task.
        defaults: The task's default inputs.
    """
    fixed = fixed_inputs(best.inputs, model.inputs, own, defaults)
    for name in _not_given(best.inputs, model.inputs):
        kind, given = model.inputs[name], best.inputs.get(name)
        instead = "requests do not give it" if given is None else f"requests give {given}"
        if name not in fixed:
            return f"{model.id} takes {kind} as {name!r}, and {instead}: it needs a value (--or-input {name}=…)"
        if not _reads(kind, fixed[name]):
            return f"{model.id} takes {kind} as {name!r}, which its value is not"
    answers, wanted = _answer_kind(model, modules), _answer_kind(best, modules)
    if answers != wanted:
        return f"{model.id} answers with {answers} ({model.answer[0]}), {best.id} with {wanted} ({best.answer[0]})"
    return None


def _not_given(best: Mapping[str, Kind], model: Mapping[str, Kind]) -> list[str]:
    """Returns the inputs of a model that requests do not give, or give in a kind that the model does not take."""
    return [name for name, kind in model.items() if best.get(name) != kind and (best.get(name), kind) not in _ALSO]


def _reads(kind: Kind, value: Any) -> bool:
    try:
        read_inputs({"value": kind}, {"value": value}, {})
    except BadInputError:
        return False
    return True


def _answer_kind(model: ModelSpec, modules: Mapping[str, ModuleSpec]) -> Kind:
    return modules[model.steps[model.head].module].outputs[model.answer[0]]
