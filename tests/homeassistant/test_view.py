"""What dashboards are told of a node that sleeps."""

from s2m3.homeassistant.view import View
from s2m3.schemas.messages import NodeState, PlannerState


def test_a_node_that_sleeps_and_can_be_woken_is_sleeping_until_it_is_there_again() -> None:
    view = View(planner=PlannerState(state="online", epoch=1, asleep={"desktop": "asleep"}))
    view.nodes.update("desktop", NodeState(state="lost", boot="1", left=True))
    view.nodes.update("cellar", NodeState(state="lost", boot="1"))
    assert [(node, view.node(node).state, view.node(node).connected) for node in ("desktop", "cellar")] == [
        ("desktop", "sleeping", False),
        ("cellar", "lost", False),
    ]
    view.nodes.update("desktop", NodeState(state="ready", boot="2"))
    assert (view.node("desktop").state, view.asleep) == ("ready", frozenset())
