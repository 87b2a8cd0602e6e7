"""Churn offline, held against what can be worked out by hand, and the command that shows it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from s2m3.planner.solving.churn import POLICIES, Policy, Speeds, simulate_churn
from s2m3.schemas import extras
from s2m3.schemas.churn_trace import Trace, drawn_trace, read_trace
from s2m3.schemas.errors import BadDefinitionError, BadInputError
from s2m3.schemas.instance import Instance, parse_instance
from tests.command import s2m3_here
from tests.planner import naive

pytestmark = pytest.mark.mutants_of(
    "s2m3.planner.solving.churn.", "s2m3.planner.solving.churn_record.", "s2m3.schemas.churn_trace."
)

HOME = Path(__file__).parents[2] / "examples" / "home.json"
DEVICES = ["a", "b"]


def _instance(*, memory_mb: float = 1000) -> Instance:
    """One module of 100 MB, on the fast device `a` or the slow `b`; latency is the module's seconds."""
    return parse_instance(
        {
            "devices": [{"id": device, "memory_mb": memory_mb} for device in DEVICES],
            "modules": [{"id": "m", "memory_mb": 100, "seconds": {"a": 1.0, "b": 1.5}}],
            "tasks": [{"id": "t", "steps": [{"id": "s", "module": "m"}]}],
        }
    )


def _trace(*events: tuple[float, str, str], until_s: float = 100) -> Trace:
    listed = [{"at_s": at, kind: device} for at, kind, device in events]
    return read_trace({"until_s": until_s, "events": listed}, "trace", DEVICES)


LOST_AND_BACK = _trace((10, "lost", "a"), (20, "joined", "a"))


@pytest.mark.parametrize(
    ("policy", "without_s", "loads", "unloads", "latency"),
    [
        # back at 20, noticed at 20.3, loaded at 21.3
        ("fixed", 11.3, 1, 0, 1.0),
        # noticed at 10.3, loaded on b at 11.3; a's return noticed at 20.3, loaded there at 21.3, and b's copy leaves
        ("replan", 1.3, 2, 1, (10 * 1 + 10 * 1.5 + 78.7 * 1) / 98.7),
        # b has a second copy, which answers once the loss is noticed; a loads again
        ("copies", 0.3, 1, 0, (10 * 1 + 11 * 1.5 + 78.7 * 1) / 99.7),
    ],
)
def test_a_loss_and_a_return_cost_what_can_be_worked_out_by_hand(
    policy: Policy, without_s: float, loads: int, unloads: int, latency: float
) -> None:
    result = simulate_churn(_instance(), LOST_AND_BACK, policy, Speeds(notice_s=0.3, load_mb_s=100))
    task = result.tasks["t"]
    assert task.without_s == task.longest_s == pytest.approx(without_s)
    assert task.availability == pytest.approx(1 - without_s / 100)
    assert (task.interruptions, result.loads, result.unloads) == (1, loads, unloads)
    assert result.loaded_mb == 100 * loads
    assert task.latency_s == pytest.approx(latency)


def test_with_every_device_gone_nothing_answers_until_one_is_back_and_has_loaded() -> None:
    trace = _trace((10, "lost", "a"), (10, "lost", "b"), (50, "joined", "b"))
    for policy in ("replan", "copies"):
        assert simulate_churn(_instance(), trace, policy).tasks["t"].without_s == pytest.approx(41.3)
    assert simulate_churn(_instance(), trace, "fixed").tasks["t"].without_s == 90


def test_a_loss_that_no_route_uses_interrupts_nothing() -> None:
    result = simulate_churn(_instance(), _trace((10, "lost", "b"), (30, "joined", "b")), "copies")
    assert (result.tasks["t"].without_s, result.tasks["t"].interruptions) == (0, 0)


def test_stand_ins_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    document = _instance().model_dump(mode="json")
    document["modules"].append({"id": "small", "memory_mb": 5000, "seconds": {"b": 1.0}})
    stand_in = {"id": "other", "steps": [{"id": "s", "module": "small"}]}
    ranked = {**document, "tasks": [task | {"stand_ins": [stand_in]} for task in document["tasks"]]}
    expected = simulate_churn(_instance(), LOST_AND_BACK, "copies")
    assert simulate_churn(parse_instance(ranked), LOST_AND_BACK, "copies") == expected
    file = tmp_path / "ranked.json"
    file.write_text(json.dumps(ranked))
    done = s2m3_here("churn", str(file), "--until", "4000")
    assert (done.returncode, done.stderr) == (0, "stand-ins are left out: each task has its best model alone\n")


def test_what_does_not_fit_together_after_a_loss_is_served_one_task_after_another() -> None:
    seed = 2
    instance = naive.home_instance(seed)
    names = [device.id for device in instance.devices]
    trace = drawn_trace(names, until_s=2500, lost_every_s=1500, back_after_s=500, seed=seed)
    found = {policy: simulate_churn(instance, trace, policy, Speeds(improve_s=0)) for policy in POLICIES}
    assert simulate_churn(instance, trace, "copies", Speeds(improve_s=0)) == found["copies"]
    assert found["fixed"].availability < found["replan"].availability < found["copies"].availability < 1
    assert all(0 < task.availability <= 1 for task in found["copies"].tasks.values())


def test_a_drawn_trace_is_one_that_a_file_may_hold_and_its_means_are_the_rates() -> None:
    trace = drawn_trace(DEVICES, until_s=2e6, lost_every_s=900, back_after_s=100, seed=3)
    assert read_trace(trace.to_json(), "trace", DEVICES) == trace
    assert drawn_trace(DEVICES, until_s=2e6, lost_every_s=900, back_after_s=100, seed=3) == trace
    assert len(trace.events) == pytest.approx(2 * 2 * 2000, rel=0.05)


@pytest.mark.parametrize("wrong", [0.0, -1.0, 1e-9, float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["until_s", "lost_every_s", "back_after_s"])
def test_a_trace_without_an_end_is_not_begun(which: str, wrong: float) -> None:
    times: dict[str, Any] = {"until_s": 10.0, "lost_every_s": 5.0, "back_after_s": 1.0}
    with pytest.raises(BadInputError, match="above 0"):
        drawn_trace(DEVICES, **(times | {which: wrong}))


def test_a_trace_of_too_many_events_is_refused_with_their_number() -> None:
    with pytest.raises(BadInputError, match=r"at most 100000 events, and this one would have 400000"):
        drawn_trace(DEVICES, until_s=1e6, lost_every_s=9, back_after_s=1)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([{"at_s": 1, "lost": "c"}], r"events.0: no device 'c'; there are: a, b"),
        ([{"at_s": 2, "lost": "a"}, {"at_s": 1, "lost": "b"}], r"events.1: at_s 1 is before the event above it, 2"),
        ([{"at_s": 1, "lost": "a"}, {"at_s": 2, "lost": "a"}], r"events.1: a is lost and was already away"),
        ([{"at_s": 1, "joined": "a"}], r"events.0: a is joined and was already there"),
        ([{"at_s": 11, "lost": "a"}], r"events.0: at_s 11 is after the end, until_s 10"),
        ([{"at_s": 1}], r"events.0: not"),
        ([{"at_s": -1, "lost": "a"}], r"events.0.at_s: Input should be greater"),
        ({}, r"not an object with"),
    ],
)
def test_a_wrong_trace_names_its_event(events: Any, said: str) -> None:
    with pytest.raises(BadDefinitionError, match=said):
        read_trace({"until_s": 10, "events": events}, "trace", DEVICES)


def test_the_command_shows_every_policy_on_one_trace_that_can_be_kept(tmp_path: Path) -> None:
    kept = tmp_path / "trace.json"
    words = ["churn", str(HOME), "--until", "4000", "--lost-every", "2000", "--write-trace", str(kept)]
    table = s2m3_here(*words)
    assert table.returncode == 0, table.stderr
    assert all(f"{policy}: " in table.stdout for policy in POLICIES)
    again = s2m3_here("churn", str(HOME), "--trace", str(kept), "--json")
    found = json.loads(again.stdout)
    assert found["events"] == len(json.loads(kept.read_text())["events"]) > 0
    rows = list(csv.DictReader(io.StringIO(s2m3_here("churn", str(HOME), "--trace", str(kept), "--csv").stdout)))
    assert [row["policy"] for row in rows] == [policy for policy in POLICIES for _ in range(2)]
    assert {float(row["loaded_mb"]) for row in rows} == {policy["loaded_mb"] for policy in found["policies"]}


def test_wrong_words_are_one_line_and_exit_2() -> None:
    for words, said in (
        ("--policy best", "no policy 'best'"),
        ("--plot x.gif", "ends with"),
        ("--until 0", "above 0"),
        ("--until nan", "above 0"),
        ("--notice nan", "--notice is at least 0"),
        ("--load-mb-s inf", "--load-mb-s above 0"),
    ):
        done = s2m3_here("churn", str(HOME), *words.split())
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


@pytest.mark.skipif(bool(extras.missing("plot")), reason="matplotlib is not installed")
def test_the_figure_names_tasks_and_policies(tmp_path: Path) -> None:
    drawn = tmp_path / "churn.svg"
    assert s2m3_here("churn", str(HOME), "--until", "8000", "--plot", str(drawn)).returncode == 0
    text = drawn.read_text()
    assert all(f">{name}</text>" in text for name in (*POLICIES, "retrieval", "transcription"))
