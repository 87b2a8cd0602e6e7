"""What a classifier's scores are: the rule by which transformers' pipelines read config.json. numpy alone, no torch."""

from collections.abc import Callable

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.ranking import Floats, sigmoid, softmax
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["named_scoring", "problem_type", "scoring", "scoring_name"]

_REGRESSION, _MULTI, _SINGLE = "regression", "multi_label_classification", "single_label_classification"


def problem_type(opened: CheckpointPart) -> str | None:
    """Returns the `problem_type` of config.json where the scores depend on it; None is one of several classes.

    Raises:
        ModuleFailedError: config.json has a problem_type that transformers does not know.
    """
    found = opened.value("problem_type")
    if found not in (None, _REGRESSION, _MULTI, _SINGLE):
        known = f"{_REGRESSION}, {_MULTI} or {_SINGLE}"
        raise ModuleFailedError(f"config.json has the problem_type {str(found)[:60]!r}; it is {known}")
    return str(found) if found in (_REGRESSION, _MULTI) else None


def scoring(opened: CheckpointPart, count: int) -> Callable[[Floats], Floats]:
    """Returns what makes scores of logits, (…, classes) each: see scoring_name.

    Raises:
        ModuleFailedError: As problem_type.
    """
    return named_scoring(scoring_name(opened, count))


def scoring_name(opened: CheckpointPart, count: int) -> str:
    """Returns how scores are made of logits: `softmax`, `sigmoid` or `none`.

    A regression's logits stay as they are. Labels that do not exclude each other, and a single label, get a sigmoid
    each; otherwise the scores are a softmax over the labels. `function_to_apply` of config.json is not read:
    transformers' pipelines reach that field only for a network without labels.

    Args:
        opened: The part.
        count: The number of its classes.

    Raises:
        ModuleFailedError: As problem_type.
    """
    problem = problem_type(opened)
    if problem == _REGRESSION:
        return "none"
    return "sigmoid" if problem == _MULTI or count == 1 else "softmax"


def named_scoring(name: str) -> Callable[[Floats], Floats]:
    """Returns what makes scores of logits by the name of the way.

    Raises:
        ModuleFailedError: There is no such way.
    """
    if name not in _SCORINGS:
        raise ModuleFailedError(f"the way {name[:40]!r} from logits to scores is not known")
    return _SCORINGS[name]


def _as_they_are(logits: Floats) -> Floats:
    return logits


_SCORINGS: dict[str, Callable[[Floats], Floats]] = {"softmax": softmax, "sigmoid": sigmoid, "none": _as_they_are}
