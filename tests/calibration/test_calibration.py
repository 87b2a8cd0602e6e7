"""Thresholds from examples: right on what was held back, the least error on what was not, and honest about few."""

import random
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.calibration import (
    Counts,
    Example,
    calibrate,
    count_errors,
    held_back,
    rate_at_most,
    threshold_of,
)
from s2m3.schemas.errors import BadInputError


def shown(label: str | None, *scores: float, answer: str = "parcel") -> list[Example]:
    return [Example(label, answer, score) for score in scores]


def drawn(label: str | None, mean: float, count: int, rng: random.Random) -> list[Example]:
    return shown(label, *(rng.gauss(mean, 0.05) for _ in range(count)))


def test_20_the_threshold_lies_in_the_gap_between_what_is_a_label_and_what_is_none() -> None:
    found = calibrate(shown("parcel", 0.6, 0.7, 0.8, 0.7, 0.65, 0.75) + shown(None, 0.1, 0.3, 0.2, 0.25, 0.15, 0.4))
    assert found.threshold == pytest.approx((0.3 + 0.6) / 2)  # 0.4 is held back
    assert found.held_back == Counts(answered=0, none=2, missed=0, labelled=2)


@pytest.mark.parametrize("seed", range(20))
def test_20_on_synthetic_sets_the_threshold_is_right_on_examples_it_has_not_seen(seed: int) -> None:
    """Scores around 0.7 and 0.3, eight deviations apart; then a thousand new ones of each."""
    rng = random.Random(seed)  # noqa: S311  # draws examples
    found = calibrate(drawn("parcel", 0.7, 12, rng) + drawn(None, 0.3, 12, rng))
    assert found.held_back.balanced == 0.0
    new = count_errors(found.threshold, drawn("parcel", 0.7, 1_000, rng) + drawn(None, 0.3, 1_000, rng))
    assert new.balanced < 0.02


def test_20_the_error_that_is_stated_is_that_of_new_examples() -> None:
    """Sets that overlap: the error on held-back examples, over many sets, is the error on fresh ones."""
    rng = random.Random(7)  # noqa: S311  # draws examples
    stated, true = [], []
    for _ in range(200):
        found = calibrate(drawn("parcel", 0.5, 30, rng) + drawn(None, 0.4, 30, rng))
        stated.append(found.held_back.balanced)
        new = drawn("parcel", 0.5, 200, rng) + drawn(None, 0.4, 200, rng)
        true.append(count_errors(found.threshold, new).balanced)
    assert sum(stated) / 200 == pytest.approx(sum(true) / 200, abs=0.01)
    assert sum(true) / 200 > 0.15


def test_scores_that_say_nothing_have_half_as_their_error() -> None:
    rng = random.Random(1)  # noqa: S311  # draws examples
    errors = [
        calibrate(drawn("parcel", 0.4, 60, rng) + drawn(None, 0.4, 60, rng)).held_back.balanced for _ in range(50)
    ]
    assert sum(errors) / 50 == pytest.approx(0.5, abs=0.05)


def test_a_wrong_label_is_an_error_above_and_below_the_threshold() -> None:
    wrong = shown("parcel", 0.9, answer="cat")
    assert [count_errors(at, wrong).missed for at in (0.5, 0.95)] == [1, 1]


@pytest.mark.parametrize(("labelled", "none", "said"), [(5, 6, "5 examples of the task's labels"), (6, 5, "none of")])
def test_too_few_examples_are_refused(labelled: int, none: int, said: str) -> None:
    with pytest.raises(BadInputError, match=f"{said}.*at least 6"):
        calibrate(shown("parcel", *[0.9] * labelled) + shown(None, *[0.1] * none))


EXAMPLES = st.lists(
    st.builds(
        Example,
        st.sampled_from([None, "parcel", "cat"]),
        st.sampled_from(["parcel", "cat"]),
        st.floats(-1, 1),
    ),
    min_size=1,
    max_size=40,
)


@given(EXAMPLES, st.floats(-2, 2))
def test_no_other_threshold_has_a_smaller_error_on_the_examples_it_was_chosen_by(
    examples: list[Example], other: float
) -> None:
    best = count_errors(threshold_of(examples), examples).balanced
    assert best <= count_errors(other, examples).balanced + 1e-12


@given(EXAMPLES, st.floats(0.5, 2), st.floats(-1, 1))
def test_what_is_accepted_does_not_depend_on_the_scale_of_the_scores(
    examples: list[Example], factor: float, shift: float
) -> None:
    """Up to rounding: the counts on the examples are those of the scaled ones."""
    scaled = [Example(e.label, e.answer, e.score * factor + shift) for e in examples]
    if len({e.score for e in scaled}) == len({e.score for e in examples}):
        before, after = (count_errors(threshold_of(some), some) for some in (examples, scaled))
        assert after.balanced == pytest.approx(before.balanced)


@given(EXAMPLES)
def test_every_example_is_used_once_and_a_third_of_each_label_is_held_back(examples: list[Example]) -> None:
    fitted, others = held_back(examples)
    assert sorted(map(repr, fitted + others)) == sorted(map(repr, examples))
    for label in {example.label for example in examples}:
        count = sum(example.label == label for example in examples)
        assert sum(example.label == label for example in others) == count // 3


@given(st.integers(1, 200), st.data())
def test_few_examples_rule_out_little(of: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, of))
    highest = rate_at_most(errors, of)
    assert errors / of <= highest <= 1.0
    if errors < of:
        seen_so_few = sum(comb(of, k) * highest**k * (1 - highest) ** (of - k) for k in range(errors + 1))
        assert seen_so_few == pytest.approx(0.05, abs=1e-6)
        assert rate_at_most(errors, of + 1) < highest


@pytest.mark.parametrize(("of", "highest"), [(3, 0.6316), (10, 0.2589), (30, 0.0950), (59, 0.0495)])
def test_without_an_error_the_bound_is_that_of_the_rule_of_three(of: int, highest: float) -> None:
    assert rate_at_most(0, of) == pytest.approx(highest, abs=1e-4)
