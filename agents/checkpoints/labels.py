"""The classes of a classifier: their names, and the answer that its logits are. numpy alone, no torch."""

from collections.abc import Callable
from dataclasses import dataclass

from s2m3.agents.checkpoints.scores import named_scoring, scoring
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.ranking import Floats, answer_of, ranked
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["Labels", "labels_of", "noted_labels", "read_labels"]

#: Classes of a ranking.
_TOP = 5


@dataclass(frozen=True)
class Labels:
    """The names of a classifier's classes, and what makes scores of logits, (…, classes) each: see scores.py."""

    names: list[str]
    scores: Callable[[Floats], Floats]

    def answer(self, logits: Floats, wanted: frozenset[str]) -> dict[str, Value]:
        """Returns the wanted ones of `label`, `score`, `ranking` (the best five) and `logits`.

        Args:
            logits: Of one item, (1, classes).
            wanted: The names of outputs.
        """
        answer = answer_of(ranked("label", self.names, self.scores(logits[0]), _TOP), wanted)
        return answer | ({"logits": logits} if "logits" in wanted else {})


def read_labels(opened: CheckpointPart, count: int) -> Labels:
    """Returns the labels of a classifier of so many classes.

    Raises:
        ModuleFailedError: config.json names another number of them, or has an unknown problem_type.
    """
    names = labels_of(opened, count)
    return Labels(names, scoring(opened, count))


def noted_labels(part: ExportedPart) -> Labels:
    """Returns the labels of an exported classifier, which notes `labels` and `scoring`.

    Raises:
        ModuleFailedError: The part does not say them.
    """
    return Labels([str(name) for name in part.note("labels")], named_scoring(str(part.note("scoring"))))


def labels_of(opened: CheckpointPart, count: int) -> list[str]:
    """Returns the names of a classifier's classes.

    Raises:
        ModuleFailedError: config.json names another number of them.
    """
    table = opened.value("id2label")
    if not isinstance(table, dict):  # transformers writes none for unnamed classes
        return [f"LABEL_{number}" for number in range(count)]
    if sorted(table, key=_number) != [str(number) for number in range(count)]:
        raise ModuleFailedError(f"config.json names {len(table)} classes in id2label; {opened.spec.id} has {count}")
    return [str(table[str(number)]) for number in range(count)]


def _number(key: str) -> int:
    return int(key) if key.isdecimal() else -1
