"""What dashboards are told: a task is ready only if a plain request would be answered; a node may be asleep."""

from s2m3.homeassistant.view import View
from s2m3.schemas import messages as m

STEP = m.RouteStep(module="x", inputs={"a": "input.text"}, outputs=["label"], replicas=[m.Replica(node="a", ms=1)])
ROUTE = m.RouteDoc(epoch=1, revision=1, model="vqa", answer=["label"], deadline_s=9, steps={"s": STEP})
READY = m.NodeState(state="ready", boot="1")


def _view() -> View:
    view = View(tasks={"porch": m.TaskSpec(model="vqa")}, routes={"porch": ROUTE})
    for node in ("a", "b"):
        view.nodes.update(node, READY)
    return view


def test_a_task_without_a_gateway_is_not_ready_and_says_so() -> None:
    view = _view()
    assert not view.task("porch").ready
    assert "gateway" in (view.task("porch").problem or "")
    assert view.planner_document().ready == 0
    view.plans["b"] = m.Plan(epoch=1, revision=1, gateways=["porch"])
    assert view.task("porch").ready
    assert view.task("porch").problem is None
    assert view.planner_document().ready == 1


def test_a_gateway_on_a_lost_node_does_not_count() -> None:
    view = _view()
    view.plans["b"] = m.Plan(epoch=1, revision=1, gateways=["porch"])
    view.nodes.update("b", m.NodeState(state="lost", boot="1"))
    assert not view.task("porch").ready
    assert view.task("porch").model == "vqa"


def test_a_step_without_a_present_copy_is_named_before_the_gateway_is() -> None:
    view = _view()
    view.nodes.update("a", m.NodeState(state="lost", boot="1"))
    assert view.task("porch").problem == "no node is ready for x"


def test_a_node_that_sleeps_and_can_be_woken_is_sleeping_until_it_is_there_again() -> None:
    view = View(planner=m.PlannerState(state="online", epoch=1, asleep={"desktop": "asleep"}))
    view.nodes.update("desktop", m.NodeState(state="lost", boot="1", left=True))
    view.nodes.update("cellar", m.NodeState(state="lost", boot="1"))
    assert [(node, view.node(node).state, view.node(node).connected) for node in ("desktop", "cellar")] == [
        ("desktop", "sleeping", False),
        ("cellar", "lost", False),
    ]
    view.nodes.update("desktop", m.NodeState(state="ready", boot="2"))
    assert (view.node("desktop").state, view.asleep) == ("ready", frozenset())


def test_a_node_concerns_the_tasks_that_it_answers_and_those_whose_gateway_it_is() -> None:
    view = _view()
    view.tasks["attic"] = view.tasks["cellar"] = m.TaskSpec(model="vqa")
    view.plans["b"] = m.Plan(epoch=1, revision=1, gateways=["attic", "of-a-task-that-is-removed"])
    assert [view.tasks_on({node}) for node in ("a", "b", "c")] == [{"porch"}, {"attic"}, set()]
    assert view.tasks_on({"a", "b"}) == {"porch", "attic"}
