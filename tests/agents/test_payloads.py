"""Payloads that wait in an agent count against its budget; beyond it a new one is refused with `busy`."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.agents.serving.payloads import PayloadRoom, payload_bytes, payload_limit

MB = 1_000_000


def room(budget_mb: float, taken_mb: float, *waiting: int) -> PayloadRoom:
    made = PayloadRoom(budget_mb, lambda: taken_mb)
    for number, held in enumerate(waiting):
        made.count(f"holder {number}", partial(int, held))
    return made


def test_files_texts_and_tensors_count_at_any_depth() -> None:
    value = {"image": [bytes(10), bytes(5)], "text": "abc", "tensor": np.zeros((2, 3), np.float32), "more": {"n": 1}}
    assert payload_bytes(value) == 10 + 5 + 3 + 24


def test_37_sixty_four_pictures_of_20_mb_do_not_fit_an_agent_of_900_mb() -> None:
    admitted, size, refusals = 0, 20 * MB, []
    for _ in range(64):
        refusal = room(900.0, 850.0 + admitted * 20, admitted * size).refusal(size)
        admitted += refusal is None
        refusals += [refusal] if refusal else []
    assert 850 + admitted * 20 <= 900 * 1.125
    assert {(refusal.code, refusal.retriable) for refusal in refusals} == {("busy", True)}
    assert refusals[0].detail == "payloads of 100 MB wait here; of 112 MB at most"


def test_37_what_modules_leave_of_the_budget_may_be_taken_by_payloads() -> None:
    assert room(900.0, 400.0, 300 * MB).refusal(20 * MB) is None
    assert room(900.0, 800.0, 300 * MB).refusal(120 * MB) is not None


def test_37_a_single_payload_is_admitted_however_large() -> None:
    assert room(100.0, 200.0).refusal(500 * MB) is None
    assert room(100.0, 200.0, 0, 0).refusal(500 * MB) is None
    assert room(100.0, 200.0, 0, 1).refusal(500 * MB) is not None


def test_37_all_holders_count_together_until_they_leave() -> None:
    made = room(100.0, 200.0, 20 * MB, 10 * MB)
    assert made.refusal(5 * MB) is not None
    made.count("holder 1", None)
    assert made.refusal(5 * MB) is None


@given(st.floats(1, 1e6), st.floats(0, 1e6), st.integers(0, 10**12))
def test_the_limit_is_what_is_free_beside_the_waiting_and_an_eighth_of_the_budget_at_least(
    budget: float, taken: float, waiting: int
) -> None:
    limit, least = payload_limit(budget, taken, waiting), max(budget / 8, 32.0) * MB
    assert int(least) <= limit <= max(least, (budget * 7 / 8 - taken) * MB + waiting) + 1


@pytest.mark.parametrize("budget", [100.0, 10_000.0])
def test_a_full_process_leaves_the_least(budget: float) -> None:
    assert payload_limit(budget, 2 * budget, 0) == int(max(budget / 8, 32.0) * MB)
