"""Orders to the planner: what is done, and what is said back."""

from typing import Any

import pytest

from s2m3.planner.control import handle_control, listen_for_control
from s2m3.schemas.messages import ControlResponse
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.sleep import NodeSettings
from tests.planner_service.site import lose, make_facts
from tests.recorders import ManualLoop, RecordedLink


class Planner:
    """Counts how often it was told to plan again, and whom it was told to wake. Node `a` has a sleep command."""

    def __init__(self) -> None:
        self.planned = 0
        self.woken: list[str] = []
        self.cluster = make_facts()
        self.cluster.profiles["a"] = self.cluster.profiles["a"].model_copy(update={"sleeps": True})

    def again(self) -> dict[str, Any]:
        self.planned += 1
        return {"plans_changed": 3}

    def told(self, verb: str, payload: bytes) -> ControlResponse:
        return handle_control(verb, payload, self.cluster, plan_again=self.again, wake=self.woken.append)


@pytest.mark.parametrize(
    ("verb", "payload", "transaction"),
    [
        ("replan", b"", None),
        ("replan", b"{}", None),
        ("replan", b'{"transaction": 7}', 7),
        ("replan", b'{"transaction": "x", "node": "gone"}', "x"),
        ("drain", b'{"transaction": 1, "node": "a"}', 1),
        ("profile", b"{}", None),
    ],
)
def test_an_order_is_followed_once_and_the_response_says_what_came_of_it(
    verb: str, payload: bytes, transaction: object
) -> None:
    planner = Planner()
    response = planner.told(verb, payload)
    assert response == ControlResponse.model_validate(
        {"status": "ok", "data": {"plans_changed": 3}, "transaction": transaction}
    )
    assert planner.planned == 1


@pytest.mark.parametrize("verb", ["drain", "undrain"])
@pytest.mark.parametrize("payload", [b'{"transaction": 1}', b'{"transaction": 1, "node": "gone"}'])
def test_a_drain_needs_a_node_that_is_there_and_says_which_are(verb: str, payload: bytes) -> None:
    planner = Planner()
    response = planner.told(verb, payload)
    assert (response.status, response.transaction, planner.planned) == ("error", 1, 0)
    assert response.error is not None
    assert response.error.code == "bad_input"
    assert response.error.detail.startswith(f"{verb} needs the name of a node that is there, not ")
    assert response.error.detail.endswith("; there are: " + ", ".join(sorted(planner.cluster.nodes.present)))


def test_a_node_takes_its_drain_back_itself() -> None:
    planner = Planner()
    response = planner.told("undrain", b'{"transaction": 1, "node": "a"}')
    assert response == ControlResponse(status="ok", transaction=1)
    assert planner.planned == 0, "its new state is what is planned for"


def test_a_node_with_a_command_for_it_is_put_to_sleep_by_itself() -> None:
    planner = Planner()
    assert planner.told("sleep", b'{"transaction": 1, "node": "a"}') == ControlResponse(status="ok", transaction=1)
    assert planner.planned == 0, "it says that it drains, and that is planned"


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("b", "b has no command that puts its machine to sleep"),
        ("gone", "sleep needs the name of a node that is there"),
    ],
)
def test_a_node_that_cannot_sleep_or_is_not_there_is_not_put_to_sleep(node: str, why: str) -> None:
    response = Planner().told("sleep", f'{{"node": "{node}"}}'.encode())
    assert response.error is not None
    assert response.error.code == "bad_input"
    assert response.error.detail.startswith(why)


def test_who_left_in_order_and_has_a_wake_address_is_woken_and_nobody_else() -> None:
    planner = Planner()
    planner.cluster.settings["a"] = planner.cluster.settings["b"] = NodeSettings(wake="52:54:00:12:34:56")
    lose(planner.cluster, "a", left=True)
    response = planner.told("wake", b'{"node": "a", "transaction": 5}')
    assert (response.status, response.transaction) == ("ok", 5)
    lose(planner.cluster, "b")
    for node in ("b", "gone"):
        response = planner.told("wake", f'{{"node": "{node}"}}'.encode())
        assert response.error is not None
        assert response.error.detail.endswith("left in order and has a wake address (a)")
    assert planner.woken == ["a"]


def test_what_cannot_be_read_is_answered_and_not_followed() -> None:
    planner = Planner()
    response = planner.told("replan", b"{")
    assert (response.status, response.transaction, planner.planned) == ("error", None, 0)
    assert response.error is not None
    assert response.error.code == "bad_input"


def test_each_order_is_heard_on_its_own_topic_and_answered_beside_it() -> None:
    made, published = Planner(), list[tuple[str, bytes]]()
    link = RecordedLink(BrokerSettings(root="home"), "s2m3-planner", ManualLoop())
    listen_for_control(
        link,  # type: ignore[arg-type]
        made.cluster,
        plan_again=made.again,
        wake=made.woken.append,
        publish=lambda topic, payload: published.append((topic, payload)),
    )
    verbs = ("drain", "profile", "replan", "sleep", "undrain", "wake")
    assert set(link.filters) == {f"home/control/{verb}" for verb in verbs}
    link.deliver("home/control/replan", b'{"transaction": 4}')
    link.deliver("home/control/drain", b'{"node": "nobody"}')
    assert [topic for topic, _ in published] == ["home/control/replan/response", "home/control/drain/response"]
    done, refused = (ControlResponse.model_validate_json(payload) for _, payload in published)
    assert (done.status, done.transaction, done.data) == ("ok", 4, {"plans_changed": 3})
    assert refused.error is not None
    assert refused.error.code == "bad_input"
    assert made.planned == 1
