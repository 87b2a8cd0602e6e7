"""What the planner knows: definitions, nodes, reports, figures, failures. Pure: the test is the clock."""

from typing import Any

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ErrorBody, ModuleReport, NodeState, Reported, StandIn, TaskSpec
from s2m3.schemas.specs import Definition
from tests.planner_service.site import hold, join, lose, make_facts

HEAD = shipped_catalogue().modules["noop-head"]
ENCODER = shipped_catalogue().modules["efficientnet-lite0"]


def profile(cluster: ClusterState, node: str, **changes: object) -> None:
    cluster.profiles[node] = cluster.profiles[node].model_copy(update=changes)


def report(cluster: ClusterState, node: str, module: str, *, boot: str = "1", **fields: object) -> None:
    fields = {"state": "ready", **fields}
    cluster.reported[node] = Reported(boot=boot, modules={module: ModuleReport.model_validate(fields)})


# ---- tasks ---------------------------------------------------------------------------------------------------------


def test_a_task_is_news_once_and_again_when_it_changes_or_goes() -> None:
    cluster = make_facts()
    assert cluster.want("t", TaskSpec(model="noop"))
    assert not cluster.want("t", TaskSpec(model="noop"))
    assert cluster.want("t", TaskSpec(model="noop", max_replicas=2))
    assert cluster.tasks["t"].max_replicas == 2
    assert cluster.want("t", None)
    assert not cluster.want("t", None)
    assert cluster.tasks == {}


def test_a_task_has_the_model_of_a_file_or_none_that_is_known() -> None:
    cluster = make_facts()
    cluster.want("t", TaskSpec(model="noop"))
    cluster.want("odd", TaskSpec(model="nonsense"))
    model = cluster.model_of("t")
    assert model is not None
    assert model.id == "noop"
    assert cluster.model_of("odd") is None


# ---- nodes ---------------------------------------------------------------------------------------------------------


def test_a_node_is_usable_when_it_is_ready_and_its_profile_is_of_the_same_process() -> None:
    cluster = make_facts(nodes={"c": 10.0, "a": 10.0, "b": 10.0})
    assert cluster.usable() == ["a", "b", "c"]
    cluster.nodes.update("a", NodeState(state="draining", boot="1"))
    profile(cluster, "b", boot="2")
    assert cluster.usable() == ["c"]
    cluster.take_profile("c", None)
    assert cluster.usable() == []
    cluster.take_profile("c", None)


def test_nodes_that_are_there_and_tell_their_load_have_a_keepalive() -> None:
    cluster = make_facts(nodes=dict.fromkeys("abc", 10.0))
    profile(cluster, "a", keepalive_s=5.0)
    profile(cluster, "c", keepalive_s=5.0)
    lose(cluster, "c")
    cluster.nodes.update("d", NodeState(state="ready", boot="1"))  # without a profile
    assert cluster.keepalives() == {"a": 5.0}


def test_what_a_node_holds_counts_while_it_is_there_and_all_its_documents_are_of_one_process() -> None:
    cluster = make_facts()
    assert cluster.holds("a", "noop-head") is None
    hold(cluster, "a", "noop-head")
    held = cluster.holds("a", "noop-head")
    assert held is not None
    assert held.state == "ready"
    assert cluster.holds("a", "noop-left") is None
    profile(cluster, "a", boot="2")
    assert cluster.holds("a", "noop-head") is None
    profile(cluster, "a", boot="1")
    lose(cluster, "a")
    assert cluster.holds("a", "noop-head") is None


def test_a_report_of_another_process_or_without_a_profile_does_not_count() -> None:
    cluster = make_facts()
    hold(cluster, "a", "noop-head", boot="2")
    assert cluster.holds("a", "noop-head") is None
    hold(cluster, "b", "noop-head")
    del cluster.profiles["b"]
    assert cluster.holds("b", "noop-head") is None


def test_ready_copies_are_those_that_are_ready_on_nodes_that_are_there_draining_ones_too() -> None:
    cluster = make_facts(nodes=dict.fromkeys("dcba", 10.0))
    for node in "dca":
        hold(cluster, node, "noop-head")
    hold(cluster, "b", "noop-head", state="loading")
    cluster.nodes.update("a", NodeState(state="draining", boot="1"))
    lose(cluster, "d")
    assert cluster.ready_nodes("noop-head") == ["a", "c"]


# ---- figures -------------------------------------------------------------------------------------------------------


def test_memory_for_modules_is_the_budget_less_what_the_runtime_takes_as_measured_or_else_as_expected() -> None:
    cluster = make_facts(nodes={"a": 500.0})
    profile(cluster, "a", runtime_mb=60.0)
    assert cluster.memory_for_modules("a") == 440.0
    cluster.reported["a"] = Reported(boot="1", runtime_mb=100.0)
    assert cluster.memory_for_modules("a") == 400.0
    cluster.reported["a"] = Reported(boot="0", runtime_mb=100.0)
    assert cluster.memory_for_modules("a") == 440.0
    cluster.reported["a"] = Reported(boot="1", runtime_mb=600.0)
    assert cluster.memory_for_modules("a") == 0.0


def test_a_node_that_holds_half_precision_has_room_for_twice_as_much_and_feels_twice_the_pressure() -> None:
    cluster = make_facts(nodes={"a": 500.0})
    profile(cluster, "a", dtype="bfloat16")
    assert cluster.memory_for_modules("a") == 1_000.0
    assert cluster.pressure("a") == 0.0
    cluster.reported["a"] = Reported(boot="1", pressure_mb=30.0)
    assert cluster.pressure("a") == 60.0
    cluster.reported["a"] = Reported(boot="0", pressure_mb=30.0)
    assert cluster.pressure("a") == 0.0


def test_a_module_takes_the_most_that_loading_it_took_anywhere_in_float32_or_else_its_estimate() -> None:
    cluster = make_facts(nodes=dict.fromkeys("abc", 500.0))
    assert cluster.memory_of(ENCODER) == pytest.approx(ENCODER.weights_mb("float32") + ENCODER.cache_mb)
    report(cluster, "a", ENCODER.id, memory_mb=7.0)
    report(cluster, "b", ENCODER.id, memory_mb=5.0)
    report(cluster, "c", ENCODER.id, memory_mb=99.0, state="loading")
    assert cluster.memory_of(ENCODER) == 7.0
    profile(cluster, "b", dtype="bfloat16")
    assert cluster.memory_of(ENCODER) == 10.0
    report(cluster, "gone", ENCODER.id, memory_mb=11.0)
    assert cluster.memory_of(ENCODER) == 11.0


def test_an_estimate_is_the_least_over_the_dtypes_of_the_nodes() -> None:
    spec = ENCODER.model_copy(update={"cache_mb": 8.0})
    cluster = make_facts(nodes={"a": 500.0, "b": 500.0})
    profile(cluster, "a", dtype="bfloat16")
    full, half = spec.weights_mb("float32") + 8.0, (spec.weights_mb("bfloat16") + 8.0) / 0.5
    assert cluster.memory_of(spec) == pytest.approx(min(full, half))
    assert make_facts(nodes={"a": 1.0}).memory_of(spec) == pytest.approx(full)
    assert ClusterState(shipped_catalogue()).memory_of(spec) == pytest.approx(full)


def test_seconds_are_measured_there_or_elsewhere_by_speed_or_else_reckoned_from_operations() -> None:
    cluster = make_facts(nodes=dict.fromkeys("abcd", 500.0))
    profile(cluster, "a", gflops=10.0)
    reckoned = cluster.seconds(ENCODER, "a")
    assert reckoned == pytest.approx(ENCODER.gflops / 10.0 / 0.3)
    report(cluster, "b", ENCODER.id, ms=20.0)  # at 100 gflops: 0.2 s at 10
    assert cluster.seconds(ENCODER, "a") == pytest.approx(0.2)
    report(cluster, "c", ENCODER.id, ms=40.0)
    report(cluster, "d", ENCODER.id, ms=90.0)
    assert cluster.seconds(ENCODER, "a") == pytest.approx(0.4)  # the median
    report(cluster, "a", ENCODER.id, ms=30.0)
    assert cluster.seconds(ENCODER, "a") == pytest.approx(0.03)


def test_what_takes_no_operations_takes_a_tenth_of_a_millisecond() -> None:
    assert make_facts().seconds(HEAD.model_copy(update={"gflops": 0.0}), "a") == 0.0001


# ---- loading -------------------------------------------------------------------------------------------------------


def test_a_node_can_load_what_its_class_and_source_are_there_for() -> None:
    cluster = make_facts()
    assert cluster.can_load(HEAD, "a", 0.0)
    profile(cluster, "a", classes=["noop-encoder"])
    assert not cluster.can_load(HEAD, "a", 0.0)
    profile(cluster, "b", sources=["other"])
    assert not cluster.can_load(HEAD, "b", 0.0)
    hub = HEAD.model_copy(update={"source": "owner/name"})
    assert not cluster.can_load(hub, "b", 0.0)
    profile(cluster, "b", sources=["hub"])
    assert cluster.can_load(hub, "b", 0.0)
    assert not cluster.can_load(HEAD, "b", 0.0)  # no id of the hub


def test_after_a_failed_load_the_next_try_waits_twice_as_long_each_time_up_to_64_times() -> None:
    cluster = make_facts()
    now, waits = 0.0, []
    for _ in range(9):
        cluster.failures.note("a", "noop-head", now)
        retry = cluster.next_retry(now)
        assert retry is not None
        assert not cluster.can_load(HEAD, "a", retry - 0.01)
        assert cluster.can_load(HEAD, "a", retry)
        assert cluster.can_load(HEAD, "b", now)
        waits.append(retry - now)
        now = retry
    assert waits == [10, 20, 40, 80, 160, 320, 640, 640, 640]


def test_a_new_process_may_try_what_failed_before_and_other_nodes_may_not() -> None:
    cluster = make_facts()
    cluster.failures.note("a", "noop-head", 0.0)
    cluster.failures.note("b", "noop-head", 0.0)
    cluster.failures.forget("a")
    assert cluster.can_load(HEAD, "a", 0.0)
    assert not cluster.can_load(HEAD, "b", 0.0)


def test_a_report_tells_what_failed_since_the_last_one_and_that_is_not_tried_again_at_once() -> None:
    cluster = make_facts()
    failed = ModuleReport(state="failed", reason=ErrorBody(code="module_failed", detail="broken"))
    first = Reported(boot="1", modules={"noop-head": failed, "noop-left": ModuleReport(state="ready")})
    assert cluster.take_report("a", first, 0.0) == ["noop-head"]
    assert cluster.reported["a"] is first
    assert not cluster.can_load(HEAD, "a", 9.0)
    assert cluster.take_report("a", first, 5.0) == []
    assert cluster.can_load(HEAD, "a", 10.0)
    again = Reported(boot="1", modules={"noop-head": ModuleReport(state="loading")})
    assert cluster.take_report("a", again, 11.0) == []
    assert cluster.take_report("a", first, 12.0) == ["noop-head"]
    assert cluster.take_report("a", Reported(boot="2", modules={"noop-head": failed}), 13.0) == ["noop-head"]
    assert cluster.take_report("a", None, 14.0) == []
    assert cluster.take_report("a", None, 14.0) == []
    assert cluster.reported == {}


def test_why_a_module_failed_is_known_after_the_node_has_dropped_it_from_its_report() -> None:
    cluster = make_facts()
    for node, why, now in (("b", "newer", 2.0), ("a", "older", 1.0)):
        failed = ModuleReport(state="failed", reason=ErrorBody(code="module_failed", detail=why))
        cluster.take_report(node, Reported(boot="1", modules={"noop-head": failed}), now)
        cluster.take_report(node, Reported(boot="1"), now + 0.1)
    failure = cluster.snapshot().failures.reason("noop-head")
    assert failure is not None
    assert failure.detail == "newer"
    assert cluster.failures.reason("noop-left") is None
    cluster.failures.forget("b")
    failure = cluster.failures.reason("noop-head")
    assert failure is not None
    assert failure.detail == "older"


# ---- time ----------------------------------------------------------------------------------------------------------


def test_the_next_look_is_at_the_earliest_retry_release_or_end_of_hope() -> None:
    cluster = make_facts()
    assert cluster.next_retry(0.0) is None
    cluster.failures.note("a", "noop-head", 0.0)
    assert cluster.next_retry(0.0) == 10.0
    cluster.note_loss("b", -4.0)
    assert cluster.next_retry(0.0) == 6.0
    assert cluster.next_retry(6.0) == 10.0
    assert cluster.next_retry(10.0) is None
    for n in range(2):
        cluster.flapping.came("c", 10.0 + n)
        cluster.flapping.left("c", 10.5 + n)
    cluster.flapping.came("c", 12.0)
    assert cluster.next_retry(12.0) == 22.0
    cluster.failures.note("a", "other", 10.0)
    assert cluster.next_retry(12.0) == 20.0


@pytest.mark.parametrize("rank", [0, 1])
def test_nodes_have_two_seconds_to_say_that_they_hold_the_checkpoint_of_a_new_task(rank: int) -> None:
    shipped = shipped_catalogue()
    left = shipped.modules["noop-left"].model_copy(update={"source": "/shelf/own"})
    definition = Definition(model=shipped.models["noop"], modules=[left])
    cluster = make_facts(nodes={"a": 10.0})
    stand_in = StandIn(model="noop", definition=definition)
    spec = [TaskSpec(model="noop", definition=definition), TaskSpec(model="noop", stand_ins=[stand_in])][rank]
    cluster.want("own", spec)
    cluster.note_new("own", 5.0)
    assert cluster.hopes("own", 6.9)
    assert not cluster.hopes("own", 7.0)
    assert not cluster.hopes("other", 6.0)
    assert cluster.next_retry(6.0) == 7.0
    cluster.want("own", None)
    assert not cluster.hopes("own", 6.0)
    profile = cluster.profiles["a"]
    cluster.take_profile("a", profile.model_copy(update={"sources": [*profile.sources, "/shelf/own"]}))
    cluster.want("own", spec)
    cluster.note_new("own", 5.0)  # a node offers it already
    assert not cluster.hopes("own", 6.0)


def test_a_lost_node_may_return_for_ten_seconds_and_counts_as_a_life_that_ended() -> None:
    cluster = make_facts()
    cluster.flapping.came("a", 0.0)
    cluster.note_loss("a", 1.0)
    assert cluster.hope_until == 11.0
    cluster.flapping.came("a", 2.0)
    cluster.note_loss("a", 3.0)
    cluster.flapping.came("a", 4.0)
    assert set(cluster.flapping.held(4.0)) == {"a"}


def test_the_epoch_followed_is_the_one_that_half_of_the_nodes_follow_at_least() -> None:
    cluster = make_facts(nodes=dict.fromkeys("abcd", 10.0))
    assert cluster.epoch_followed() == 0
    for node, epoch in {"a": 7, "b": 5, "c": 9}.items():
        cluster.reported[node] = Reported(boot="1", epoch=epoch)
    assert cluster.epoch_followed() == 7
    cluster.reported["d"] = Reported(boot="1", epoch=8)
    assert cluster.epoch_followed() == 8
    lose(cluster, "c")
    lose(cluster, "d")
    assert cluster.epoch_followed() == 7


def test_a_join_after_a_loss_counts_with_its_own_process() -> None:
    cluster = make_facts()
    hold(cluster, "a", "noop-head")
    lose(cluster, "a")
    join(cluster, "a", boot="2")
    assert cluster.usable() == ["a", "b"]
    assert cluster.holds("a", "noop-head") is None


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({}, False),
        ({"free_mb": 7.0}, False),
        ({"revision": 9}, False),
        ({"runtime_mb": 101.0}, False),
        ({"runtime_mb": 120.0}, True),
        ({"pressure_mb": 50.0}, True),
        ({"epoch": 2}, True),
        ({"boot": "2"}, True),
        ({"modules": {}}, True),
        ({"modules": {"m": {"state": "ready", "ms": 5.04, "memory_mb": 100.4}}}, False),
        ({"modules": {"m": {"state": "ready", "ms": 5.04, "memory_mb": 100.4, "progress": 0.5}}}, False),
        ({"modules": {"m": {"state": "ready", "ms": 5.2, "memory_mb": 100.4}}}, True),
        ({"modules": {"m": {"state": "ready", "ms": 5.0, "memory_mb": 120.0}}}, True),
        ({"modules": {"m": {"state": "failed", "ms": 5.0, "memory_mb": 100.0}}}, True),
    ],
)
def test_a_report_that_says_the_same_to_two_digits_changes_no_plan(change: dict[str, Any], *, matters: bool) -> None:
    modules = {"m": {"state": "ready", "ms": 5.0, "memory_mb": 100.0}}
    first = {"boot": "1", "epoch": 1, "runtime_mb": 100.0, "modules": modules}
    cluster = make_facts()
    assert cluster.matters("a", Reported.model_validate(first))
    cluster.take_report("a", Reported.model_validate(first), 0.0)
    assert cluster.matters("a", Reported.model_validate(first | change)) is matters
    assert cluster.matters("a", None)
