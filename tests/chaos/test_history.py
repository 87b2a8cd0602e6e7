"""The checker itself, against histories that it must not let pass."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.history import Entry, History, judge


def _asked(request: str = "1", t: float = 0.0, **changes: Any) -> Entry:
    entry = {"t": t, "event": "asked", "id": request, "kind": "direct", "task": "t", "expected": [1], "deadline_s": 10}
    return entry | changes


def _answered(request: str = "1", t: float = 1.0, **changes: Any) -> Entry:
    return {"t": t, "event": "answered", "id": request, "value": [1], "code": None, "attempts": 1} | changes


def test_one_right_answer_in_time_holds() -> None:
    verdict = judge([_asked(), _answered()])
    assert verdict.holds
    assert (verdict.asked, verdict.succeeded, verdict.latencies_s) == (1, 1, [1.0])


def test_an_error_with_a_code_is_a_terminal_answer() -> None:
    verdict = judge([_asked(), _answered(code="busy", value=None)])
    assert verdict.holds
    assert verdict.errors == {"busy": 1}


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([_asked()], "unanswered"),
        ([_asked(), _answered(), _answered(t=2.0)], "duplicates"),
        ([_asked(), _answered(code="timeout", value=None), _answered(t=2.0)], "duplicates"),
        ([_asked(), _answered(value=[2])], "wrong"),
        ([_asked(), _answered(t=13.0)], "late"),
        ([_answered()], "unknown"),
    ],
)
def test_a_bad_history_does_not_hold_and_the_request_is_named(entries: list[Entry], what: str) -> None:
    verdict = judge(entries)
    assert not verdict.holds
    assert getattr(verdict, what) == ["1"]
    assert what in str(verdict)


def test_an_error_after_the_deadline_is_no_late_success() -> None:
    assert judge([_asked(), _answered(t=11.0, code="timeout", value=None)]).holds


def test_a_plain_caller_may_hear_twice_which_is_counted_apart() -> None:
    verdict = judge([_asked(kind="plain"), _answered(), _answered(t=2.0)])
    assert verdict.holds
    assert verdict.plain_duplicates == ["1"]


def test_the_second_of_two_answers_is_checked_too() -> None:
    assert judge([_asked(kind="plain"), _answered(), _answered(t=2.0, value=[2])]).wrong == ["1"]


def test_a_history_is_on_disk_line_by_line_with_its_seed(tmp_path: Path) -> None:
    history = History(tmp_path / "run.jsonl", seed=42)
    history.asked("1", "direct", "t", [1], 10.0)
    assert not history.wait_until_all_answered(0.0)
    assert history.verdict().unanswered == ["1"]
    history.fault("SIGKILL a")
    history.answered("1", value=[1], attempts=2)
    assert history.wait_until_all_answered(0.0)
    verdict = history.verdict()
    assert (verdict.holds, verdict.seed, verdict.resent) == (True, 42, 1)


def test_a_plain_request_that_waited_in_the_broker_is_not_late() -> None:
    assert judge([_asked(kind="plain"), _answered(t=11.0)]).holds
