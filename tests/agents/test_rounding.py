"""Tensors between nodes in half the bytes: within what the task tolerates, and float32 again for the next module."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from s2m3.agents.serving.once_per_content import content_of_inputs
from s2m3.agents.serving.rounding import rounded, widened, with_rounded
from s2m3.schemas.wire.codec import decode_work, encode_work
from s2m3.schemas.wire.work import Hop, Work

STATES = np.random.default_rng(7).normal(0, 5, (1, 100, 64)).astype(np.float32)


def route(tolerance: float) -> dict[str, Hop]:
    return {
        "encode": Hop("encoder", "a", {"x": "input.x"}, ("states",), tolerance=tolerance),
        "head": Hop("head", "b", {"states": "encode.states", "x": "input.x"}, ("sum",)),
    }


def test_large_tensors_are_halved_at_any_depth_and_all_else_stays() -> None:
    small, whole = STATES[0, :2], np.arange(20_000)
    found = rounded({"a": [{"b": STATES}], "small": small, "whole": whole, "text": "x"}, 0.0005)
    assert found["a"][0]["b"].dtype == np.float16
    assert np.abs(found["a"][0]["b"] - STATES).max() <= 0.0005 * np.abs(STATES).max()
    assert (found["small"] is small, found["whole"] is whole, found["text"]) == (True, True, "x")


@pytest.mark.parametrize(
    ("value", "tolerance"),
    [(1.0, 0.0), (1.0, 1e-5), (1e6, 0.0005), (float("inf"), 1.0), (float("nan"), 1.0)],
    ids=["nothing tolerated", "less tolerated", "out of range", "infinite", "not a number"],
)
def test_a_tensor_that_float16_would_change_by_more_goes_as_it_is(value: float, tolerance: float) -> None:
    tensor = STATES.copy()
    tensor[0, 0, 0] = value
    assert rounded({"a": tensor}, tolerance)["a"] is tensor


def test_what_came_from_a_step_with_a_tolerance_is_float32_again_and_the_requests_own_tensors_stay() -> None:
    half = STATES.astype(np.float16)
    work = Work(b"1" * 16, "t", "head", 1, 1, "inbox", {"states": half, "x": half}, route(0.0005), 1_000.0)
    arrived = with_rounded(work)
    assert arrived.inputs is work.inputs  # in the loop's thread nothing is computed
    found = widened(arrived)
    assert (found["states"].dtype, found["x"].dtype) == (np.float32, np.float16)
    assert widened(with_rounded(replace(work, route=route(0.0))))["states"].dtype == np.float16
    assert with_rounded(replace(work, inputs={"states": STATES, "x": half})).rounded == frozenset()


def test_inputs_that_are_going_to_be_widened_are_not_those_that_are_given_as_they_are() -> None:
    inputs = {"states": STATES.astype(np.float16)}
    assert content_of_inputs(inputs, {"states"}) not in {content_of_inputs(inputs), None}
    assert content_of_inputs(inputs, {"states"}) == content_of_inputs(dict(inputs), frozenset({"states"}))


def test_a_tolerance_travels_with_the_route_and_is_checked() -> None:
    work = Work(b"1" * 16, "t", "head", 1, 1, "inbox", {"states": STATES}, route(0.0005), 1_000.0)
    payload, user = encode_work(work)
    read = decode_work(payload, request=work.request, reply_to="inbox", user=dict(user))
    assert {step: hop.tolerance for step, hop in read.route.items()} == {"encode": 0.0005, "head": 0.0}
    assert b"tolerance" not in encode_work(replace(work, route=route(0.0)))[0]


def test_a_tensor_of_16_kib_goes_as_it_is_and_a_larger_one_is_halved() -> None:
    for rows, dtype in ((4_096, np.float32), (4_097, np.float16)):
        assert rounded({"a": np.ones(rows, np.float32)}, 0.0005)["a"].dtype == dtype


def test_only_float32_is_rounded() -> None:
    for dtype in (np.float64, np.float16, np.int32):
        tensor = np.ones(20_000, dtype)
        assert rounded({"a": tensor}, 1.0)["a"] is tensor


@pytest.mark.parametrize(("share", "halved"), [(1.0, True), (0.99, False)], ids=["as far as tolerated", "farther"])
def test_a_tolerance_is_a_share_of_the_largest_number_or_of_one(*, share: float, halved: bool) -> None:
    """Near 0.5 float16 has steps of 2^-11, so a number 2^-13 above 0.5 is off by that."""
    small = np.full(5_000, 0.5 + 2.0**-13, np.float32)
    assert (rounded({"a": small}, 2.0**-13 * share)["a"].dtype == np.float16) is halved
    with_four = np.append(small, np.float32(-4.0))
    assert (rounded({"a": with_four}, 2.0**-15 * share)["a"].dtype == np.float16) is halved


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_numbers_that_float16_has_not_are_found_without_a_warning(value: float) -> None:
    tensor = STATES.copy()
    tensor[0, 0, 0] = value
    with np.errstate(all="raise"):
        assert rounded({"a": tensor}, 1.0)["a"] is tensor


def test_values_are_rounded_and_widened_at_any_depth_and_only_what_was_rounded() -> None:
    half, whole, kept = STATES.astype(np.float16), STATES, np.arange(3, dtype=np.float64)
    given = {"states": {"a": [half, "text"], "b": whole, "c": kept}, "x": [half]}
    work = Work(b"1" * 16, "t", "head", 1, 1, "inbox", given, route(0.0005), 1_000.0)
    found: dict[str, Any] = dict(widened(with_rounded(work)))
    assert [found["states"]["a"][0].dtype, found["states"]["a"][1]] == [np.float32, "text"]
    assert np.array_equal(found["states"]["a"][0], half)
    assert (found["states"]["b"] is whole, found["states"]["c"] is kept, found["x"][0] is half) == (True, True, True)


def test_work_without_a_step_that_rounds_is_left_as_it_is() -> None:
    work = Work(b"1" * 16, "t", "head", 1, 1, "inbox", {"states": STATES}, route(0.0), 1_000.0)
    assert (with_rounded(work) is work, widened(work) is work.inputs) == (True, True)
    of_the_request = replace(work, route=route(0.0005), inputs={"x": STATES.astype(np.float16)})
    assert with_rounded(of_the_request) is of_the_request
