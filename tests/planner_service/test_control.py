"""Orders to the planner: what is done, and what is said back."""

from typing import Any

import pytest

from s2m3.planner.control import handle_control
from s2m3.schemas.messages import ControlResponse


class Planner:
    """Counts how often it was told to plan again."""

    def __init__(self) -> None:
        self.planned = 0

    def again(self) -> dict[str, Any]:
        self.planned += 1
        return {"plans_changed": 3}

    def told(self, verb: str, payload: bytes) -> ControlResponse:
        return handle_control(verb, payload, {"a", "b"}, self.again)


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


@pytest.mark.parametrize("payload", [b'{"transaction": 1}', b'{"transaction": 1, "node": "gone"}'])
def test_a_drain_needs_a_node_that_is_there(payload: bytes) -> None:
    planner = Planner()
    response = planner.told("drain", payload)
    assert (response.status, response.transaction, planner.planned) == ("error", 1, 0)
    assert response.error is not None
    assert response.error.code == "bad_input"
    assert response.error.detail.startswith("drain needs the name of a node that is there, not ")


def test_what_cannot_be_read_is_answered_and_not_followed() -> None:
    planner = Planner()
    response = planner.told("replan", b"{")
    assert (response.status, response.transaction, planner.planned) == ("error", None, 0)
    assert response.error is not None
    assert response.error.code == "bad_input"
