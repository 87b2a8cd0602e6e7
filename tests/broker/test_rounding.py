"""Which steps of a route may round what they send: by the task, the links, and what the agents understand."""

import pytest

from s2m3.broker.requests.rounding import pays, with_tolerance
from s2m3.broker.requests.routing import Backlog, Router
from s2m3.schemas.messages import NodeState, Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.work import Hop, Route
from tests.broker.asked import ID, requests, sent


def document(tolerance: float = 0.0005, mbps: float = 90.0, head: str = "b") -> RouteDoc:
    """An encoder on node a over a link of so many Mbit/s, and a head over one of 900."""
    encoder = Replica(node="a", ms=10, mbps=mbps)
    steps = {
        "encode": RouteStep(
            module="e", inputs={"x": "input.x"}, outputs=["code"], output_kb=2300.0, replicas=[encoder]
        ),
        "head": RouteStep(
            module="h",
            inputs={"c": "encode.code"},
            outputs=["out"],
            replicas=[Replica(node=head, ms=10, mbps=mbps if head == "a" else 900.0)],
        ),
    }
    return RouteDoc(
        epoch=3, revision=1, model="m", inputs={"x": "text"}, answer=["out"], deadline_s=10, steps=steps,
        tolerance=tolerance,
    )  # fmt: skip


def told(doc: RouteDoc, **protocols: int) -> Route:
    """The route of a request's message, to agents of these protocol numbers."""
    tracker = requests()
    for node, number in protocols.items():
        tracker.on_node_state(node, NodeState(state="ready", boot="1", protocol=number), 0.0)
    tracker.on_route("t", doc, 0.0)
    return sent(tracker.submit(ID, "t", {"x": "a"}, None, 0.0)).route


def test_a_step_before_a_slow_link_has_the_tasks_tolerance_and_the_last_one_has_none() -> None:
    assert {step: hop.tolerance for step, hop in told(document(), a=1, b=1).items()} == {"encode": 0.0005, "head": 0.0}


@pytest.mark.parametrize(
    "doc",
    [document(tolerance=0.0), document(head="a")],
    ids=["the task tolerates nothing", "both steps on one node"],
)
def test_nothing_is_rounded_where_it_is_not_tolerated_or_nothing_is_sent(doc: RouteDoc) -> None:
    assert not any(hop.tolerance for hop in told(doc, a=1, b=1).values())


def test_nothing_is_rounded_over_a_link_that_is_faster_than_rounding() -> None:
    doc = document(mbps=5_000.0)
    head = doc.steps["head"].model_copy(update={"replicas": [Replica(node="b", ms=10, mbps=5_000.0)]})
    steps = {**doc.steps, "head": head}
    assert told(doc, a=1, b=1)["encode"].tolerance  # the head's link is the slower one
    assert not told(doc.model_copy(update={"steps": steps}), a=1, b=1)["encode"].tolerance


@pytest.mark.parametrize("protocols", [{"a": 0, "b": 1}, {"a": 1, "b": 0}, {}])
def test_an_agent_of_an_older_release_is_told_of_no_tolerance(protocols: dict[str, int]) -> None:
    assert not any(hop.tolerance for hop in told(document(), **protocols).values())


@pytest.mark.parametrize(("mbps", "does"), [(1.0, True), (1_000.0, True), (1_000.1, False)])
def test_rounding_pays_up_to_a_gigabit_a_second(*, mbps: float, does: bool) -> None:
    assert pays(mbps) is does


def test_a_link_that_nobody_has_measured_counts_as_a_slow_one() -> None:
    """The route of a request may name a node that the newest document does not."""
    doc = document(mbps=5_000.0)
    head = doc.steps["head"].model_copy(update={"replicas": [Replica(node="b", ms=10, mbps=5_000.0)]})
    doc = doc.model_copy(update={"steps": {**doc.steps, "head": head}})
    route = {
        "encode": Hop("e", "gone", {"x": "input.x"}, ("code",)),
        "head": Hop("h", "b", {"c": "encode.code"}, ("out",)),
    }
    found = with_tolerance(doc, route, lambda _: 1)
    assert {step: hop.tolerance for step, hop in found.items()} == {"encode": 0.0005, "head": 0.0}
    assert not route["encode"].tolerance


def test_half_the_bytes_are_expected_to_arrive_sooner() -> None:
    """The head's copy on the encoder's node takes 150 ms longer, the bytes 204 ms, or half of that."""
    nodes = {}
    for tolerance in (0.0, 0.0005):
        doc = document(tolerance)
        replicas = [Replica(node="a", ms=160, mbps=90.0), Replica(node="b", ms=10, mbps=900.0)]
        head = doc.steps["head"].model_copy(update={"replicas": replicas})
        route = Router(doc.model_copy(update={"steps": {**doc.steps, "head": head}})).choose(Backlog())
        assert route is not None
        nodes[tolerance] = route["head"].node
    assert nodes == {0.0: "a", 0.0005: "b"}
