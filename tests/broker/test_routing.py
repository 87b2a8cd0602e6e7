"""Which node does which step: least estimated finish."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.broker.requests.routing import Backlog, Router
from s2m3.schemas.messages import Replica, RouteDoc, RouteStep


def replica(node: str, ms: float, latency_ms: float = 1.0, mbps: float = 100.0) -> Replica:
    return Replica(node=node, ms=ms, latency_ms=latency_ms, mbps=mbps)


def document(steps: dict[str, RouteStep]) -> RouteDoc:
    return RouteDoc(epoch=1, revision=1, model="m", inputs={"x": "data"}, answer=["y"], deadline_s=30, steps=steps)


def two_encoders(image: list[Replica], text: list[Replica], head: list[Replica], kb: float = 1.0) -> RouteDoc:
    return document(
        {
            "image": RouteStep(module="vit", inputs={"x": "input.x"}, outputs=["e"], output_kb=kb, replicas=image),
            "text": RouteStep(module="bert", inputs={"x": "input.x"}, outputs=["e"], output_kb=kb, replicas=text),
            "head": RouteStep(module="cos", inputs={"a": "image.e", "b": "text.e"}, outputs=["y"], replicas=head),
        }
    )


def nodes_of(doc: RouteDoc, backlog: Backlog | None = None, **how: frozenset[str]) -> dict[str, str]:
    route = Router(doc).choose(backlog or Backlog(), **how)
    assert route is not None
    return {step: hop.node for step, hop in route.items()}


def test_two_encoders_go_to_different_nodes_where_that_is_faster() -> None:
    both = [replica("a", 100), replica("b", 100)]
    nodes = nodes_of(two_encoders(both, both, [replica("a", 1)]))
    assert {nodes["image"], nodes["text"]} == {"a", "b"}


def test_two_encoders_go_to_one_node_where_the_other_is_slower_than_waiting() -> None:
    nodes = nodes_of(two_encoders([replica("a", 10), replica("b", 500)], [replica("a", 10), replica("b", 500)], [
        replica("a", 1)
    ]))  # fmt: skip
    assert nodes == {"image": "a", "text": "a", "head": "a"}


def test_the_longer_encoder_gets_the_better_node() -> None:
    nodes = nodes_of(
        two_encoders([replica("a", 100), replica("b", 900)], [replica("a", 10), replica("b", 90)], [replica("a", 1)])
    )
    assert nodes["image"] == "a"
    assert nodes["text"] == "b"


def test_the_head_goes_where_the_larger_input_already_is() -> None:
    doc = two_encoders([replica("a", 10)], [replica("b", 10)], [replica("a", 1), replica("b", 1)], kb=0.1)
    big = {**doc.steps, "image": doc.steps["image"].model_copy(update={"output_kb": 4000.0})}
    assert nodes_of(doc.model_copy(update={"steps": big}))["head"] == "a"


def test_a_step_goes_where_less_waits() -> None:
    both = [replica("a", 10), replica("b", 12)]
    doc = document({"only": RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=both)})
    assert nodes_of(doc) == {"only": "a"}
    assert nodes_of(doc, Backlog(queued={("a", "m"): 1})) == {"only": "b"}
    busy = Backlog()
    busy.inflight["a", "m"] = 3
    assert nodes_of(doc, busy) == {"only": "b"}


def test_what_we_sent_is_not_counted_twice_when_the_node_counts_it_too() -> None:
    backlog = Backlog(queued={("a", "m"): 2}, inflight=defaultdict(int, {("a", "m"): 2}))
    assert backlog.items("a", "m") == 2


def test_lost_nodes_are_never_used() -> None:
    both = [replica("a", 1), replica("b", 1000)]
    doc = two_encoders(both, both, both)
    assert set(nodes_of(doc, lost=frozenset({"a"})).values()) == {"b"}
    assert Router(doc).choose(Backlog(), lost=frozenset({"a", "b"})) is None


def test_a_node_to_avoid_is_used_only_where_there_is_no_other() -> None:
    doc = two_encoders([replica("a", 1), replica("b", 1000)], [replica("a", 1)], [replica("a", 1), replica("b", 1)])
    assert nodes_of(doc, avoid=frozenset({"a"})) == {"image": "b", "text": "a", "head": "b"}


def test_a_lost_node_is_not_used_because_the_other_is_to_be_avoided() -> None:
    both = [replica("a", 1), replica("b", 1)]
    assert set(nodes_of(two_encoders(both, both, both), lost=frozenset({"a"}), avoid=frozenset({"b"})).values()) == {
        "b"
    }


def test_a_step_without_a_ready_replica_gives_no_route() -> None:
    assert Router(two_encoders([replica("a", 1)], [], [replica("a", 1)])).choose(Backlog()) is None


def test_a_route_carries_the_wiring() -> None:
    route = Router(two_encoders([replica("a", 1)], [replica("b", 1)], [replica("a", 1)])).choose(Backlog())
    assert route is not None
    assert route["head"].inputs == {"a": "image.e", "b": "text.e"}
    assert route["head"].outputs == ("y",)
    assert route["text"].module == "bert"


def one_step(*there: Replica, kb: float = 0.0) -> RouteDoc:
    step = RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], input_kb=kb, replicas=list(there))
    return document({"only": step})


def test_ten_kilobytes_over_ten_megabits_a_second_take_eight_milliseconds() -> None:
    fast = replica("a", 10.0 + 8.1, latency_ms=0.0, mbps=1e9)
    slow = replica("b", 10.0, latency_ms=0.0, mbps=10.0)
    assert nodes_of(one_step(fast, slow, kb=10.0)) == {"only": "b"}
    faster = replica("a", 10.0 + 7.9, latency_ms=0.0, mbps=1e9)
    assert nodes_of(one_step(faster, slow, kb=10.0)) == {"only": "a"}


@pytest.mark.parametrize(("faster_by", "node"), [(23.9, "a"), (24.1, "b")])
def test_what_moves_between_nodes_takes_both_latencies_and_the_slower_of_their_links(
    faster_by: float, node: str
) -> None:
    """From a to b: 7 + 9 ms, and 10 kB over 10 Mbit/s, 8 ms: 24 ms that b has to be faster than a by."""
    steps = {
        "first": RouteStep(
            module="m",
            inputs={"x": "input.x"},
            outputs=["y"],
            output_kb=10.0,
            replicas=[replica("a", 1.0, latency_ms=7.0, mbps=10.0)],
        ),
        "second": RouteStep(
            module="n",
            inputs={"x": "first.y"},
            outputs=["y"],
            replicas=[
                replica("a", 26.0, latency_ms=7.0, mbps=10.0),
                replica("b", 26.0 - faster_by, latency_ms=9.0, mbps=1_000.0),
            ],
        ),
    }
    assert nodes_of(document(steps))["second"] == node


def test_a_module_of_two_steps_waits_once_at_a_node() -> None:
    both = [replica("a", 10.0), replica("b", 32.0)]
    step = RouteStep(module="same", inputs={"x": "input.x"}, outputs=["y"], replicas=both)
    doc = document({"one": step, "two": step})
    assert nodes_of(doc, Backlog(queued={("a", "same"): 2})) == {"one": "a", "two": "b"}


def test_of_equal_nodes_the_first_by_name_is_taken() -> None:
    assert nodes_of(one_step(replica("b", 10.0), replica("a", 10.0))) == {"only": "a"}


def test_where_nothing_is_to_choose_the_only_route_is_given_unless_its_node_is_lost() -> None:
    doc = two_encoders([replica("a", 1)], [replica("b", 1)], [replica("a", 1)])
    assert list(nodes_of(doc).items()) == [("image", "a"), ("text", "b"), ("head", "a")]
    assert nodes_of(doc, avoid=frozenset({"a", "b"})) == {"image": "a", "text": "b", "head": "a"}
    assert Router(doc).choose(Backlog(), lost=frozenset({"b"})) is None


amounts = st.floats(0.5, 500)
replicas = st.dictionaries(st.sampled_from("abcd"), st.tuples(amounts, st.floats(0, 50), amounts), min_size=1).map(
    lambda found: [replica(node, *figures) for node, figures in sorted(found.items())]
)
queues = st.dictionaries(st.tuples(st.sampled_from("abcd"), st.just("m")), st.integers(0, 5))


@given(replicas, queues, st.floats(0, 100))
def test_a_single_step_goes_where_trying_all_would_send_it(
    there: list[Replica], queued: dict[tuple[str, str], int], kb: float
) -> None:
    doc = document({"only": RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], input_kb=kb, replicas=there)})
    backlog = Backlog(queued=queued)

    def finish(r: Replica) -> float:
        return max(r.latency_ms + 8 * kb / r.mbps, backlog.items(r.node, "m") * r.ms) + r.ms

    chosen = nodes_of(doc, backlog)["only"]
    best = min(map(finish, there))
    assert finish(next(r for r in there if r.node == chosen)) == pytest.approx(best)


@given(replicas, replicas, replicas, st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")))
def test_every_step_has_a_ready_node_that_is_not_lost_or_there_is_no_route(
    image: list[Replica], text: list[Replica], head: list[Replica], lost: set[str], avoid: set[str]
) -> None:
    doc = two_encoders(image, text, head)
    route = Router(doc).choose(Backlog(), lost=frozenset(lost), avoid=frozenset(avoid))
    able = {name: {r.node for r in step.replicas} - lost for name, step in doc.steps.items()}
    assert (route is None) == (not all(able.values()))
    for name, hop in (route or {}).items():
        assert hop.node in able[name]
        assert hop.node not in avoid or able[name] <= avoid


def test_of_equal_steps_the_first_by_name_has_the_first_call_on_a_node() -> None:
    both = [replica("a", 10.0), replica("b", 10.5)]
    step = RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=both)
    other = step.model_copy(update={"module": "n"})
    assert nodes_of(document({"z": step, "k": other})) == {"z": "b", "k": "a"}


def test_of_steps_that_are_ready_together_the_longest_has_the_first_call_on_a_node() -> None:
    short = RouteStep(
        module="s", inputs={"x": "input.x"}, outputs=["y"], replicas=[replica("a", 10.0), replica("b", 40.0)]
    )
    long = RouteStep(
        module="l", inputs={"x": "input.x"}, outputs=["y"], replicas=[replica("a", 100.0), replica("b", 400.0)]
    )
    assert nodes_of(document({"a-short": short, "z-long": long})) == {"a-short": "b", "z-long": "a"}


def test_a_step_that_takes_nothing_of_the_request_waits_for_the_steps_before_it_alone() -> None:
    """The first ends after 0.1 ms at a; at b, where the second is 0.5 ms faster, 0.4 ms of transfer would be added."""
    first = RouteStep(
        module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=[replica("a", 0.1, latency_ms=0.0, mbps=1e9)]
    )
    there = [replica("a", 1.0, latency_ms=0.0, mbps=1e9), replica("b", 0.5, latency_ms=0.6, mbps=1e9)]
    second = RouteStep(module="n", inputs={"x": "first.y"}, outputs=["y"], output_kb=0.0, replicas=there)
    assert nodes_of(document({"first": first, "second": second}))["second"] == "a"
