"""Calibration: the score threshold between a task's answers and "none of these", from examples. Pure statistics.

A third of the examples is held back: the threshold comes from the others, and the stated error from those held back.
The error is balanced: the mean of two rates, so that it does not depend on the number of examples of each kind.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb, inf, nextafter

from s2m3.schemas.errors import BadInputError

__all__ = ["Calibration", "Counts", "Example", "calibrate", "count_errors", "held_back", "rate_at_most", "threshold_of"]

#: Each third example of a label is held back.
_EVERY = 3
#: Fewest examples of none of these, and of all labels together.
LEAST = 6
_CONFIDENCE = 0.95
_HALVINGS = 50


@dataclass(frozen=True, slots=True)
class Example:
    """One example: its true label (None: none of these), and the task's best label with its score."""

    label: str | None
    answer: str
    score: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Errors of a threshold.

    Args:
        answered: Examples of none of these that got an answer, of `none` examples.
        none: Examples of none of these.
        missed: Examples of a label that got no answer or a wrong one, of `labelled` examples.
        labelled: Examples of a label.
    """

    answered: int
    none: int
    missed: int
    labelled: int

    @property
    def balanced(self) -> float:
        """The mean of both error rates, 0 to 1; a threshold that tells nothing apart has 0.5."""
        return (self.answered / max(1, self.none) + self.missed / max(1, self.labelled)) / 2


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold, its errors on the examples that it was chosen by, and on those held back."""

    threshold: float
    fitted: Counts
    held_back: Counts


def calibrate(examples: Sequence[Example]) -> Calibration:
    """Returns the threshold for some examples, and its errors.

    Raises:
        BadInputError: There are fewer than 6 examples of none of these, or of labels.
    """
    none = sum(example.label is None for example in examples)
    for found, what in ((none, "none of these"), (len(examples) - none, "the task's labels")):
        if found < LEAST:
            raise BadInputError(f"{found} examples of {what}; at least {LEAST} are needed")
    fitted, others = held_back(examples)
    threshold = threshold_of(fitted)
    return Calibration(threshold, count_errors(threshold, fitted), count_errors(threshold, others))


def held_back(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Returns the examples to choose by, and those held back: every third of each label, in their order."""
    fitted: list[Example] = []
    others: list[Example] = []
    seen: defaultdict[str | None, int] = defaultdict(int)
    for example in examples:
        seen[example.label] += 1
        (others if seen[example.label] % _EVERY == 0 else fitted).append(example)
    return fitted, others


def count_errors(threshold: float, examples: Iterable[Example]) -> Counts:
    """Returns the errors of a threshold: scores below it are none of these."""
    answered = none = missed = labelled = 0
    for example in examples:
        accepted = example.score >= threshold
        if example.label is None:
            none += 1
            answered += accepted
        else:
            labelled += 1
            missed += not (accepted and example.answer == example.label)
    return Counts(answered, none, missed, labelled)


def threshold_of(examples: Sequence[Example]) -> float:
    """Returns the threshold of the least balanced error; of equals, the one in the middle of the widest gap.

    Args:
        examples: At least one.
    """
    scores = sorted({example.score for example in examples})
    middles = [
        (max(below + (above - below) / 2, nextafter(below, above)), above - below) for below, above in pairwise(scores)
    ]
    candidates = [(scores[0], 0.0), *middles, (nextafter(scores[-1], inf), 0.0)]
    return min(candidates, key=lambda found: (count_errors(found[0], examples).balanced, -found[1]))[0]


def rate_at_most(errors: int, of: int) -> float:
    """Returns the highest rate of errors that so few errors do not rule out with 95 % (Clopper and Pearson, 1934).

    Args:
        errors: Errors seen.
        of: Examples, at least as many.
    """
    if errors >= of:
        return 1.0
    low, high = errors / of, 1.0
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        likely = sum(comb(of, k) * rate**k * (1 - rate) ** (of - k) for k in range(errors + 1)) > 1 - _CONFIDENCE
        low, high = (rate, high) if likely else (low, rate)
    return high
