"""What the bridge publishes when something changes: of what changed, and not of the whole site."""

from dataclasses import dataclass

from s2m3.bridge.retention import Retention
from s2m3.homeassistant.announcer import Announcer
from s2m3.homeassistant.view import View
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas.settings import BrokerSettings
from tests.recorders import ManualLoop, RecordedLink


@dataclass(slots=True)
class Counted(View):
    """A view that counts how often it looks at all tasks."""

    counts: int = 0

    def planner_document(self) -> b.BridgePlanner:
        self.counts += 1
        return View.planner_document(self)


class House:
    """Two nodes, each with a task of its own, and what is published of them."""

    def __init__(self) -> None:
        self.loop, self.view = ManualLoop(), Counted()
        self.link = RecordedLink(BrokerSettings(root="home"), "bridge", self.loop, connected=True)
        self.announcer = Announcer(
            self.link,  # type: ignore[arg-type]
            self.loop,  # type: ignore[arg-type]
            self.view,
            None,
            lambda: None,
            retention=Retention(0.0, 0.0),
        )
        for node, task in (("a", "porch"), ("b", "attic")):
            replica = m.Replica(node=node, ms=1)
            step = m.RouteStep(module="x", inputs={"a": "input.text"}, outputs=["label"], replicas=[replica])
            self.view.tasks[task] = m.TaskSpec(model="vqa")
            self.view.routes[task] = m.RouteDoc(
                epoch=1, revision=1, model="vqa", answer=["label"], deadline_s=9, steps={"s": step}
            )
            self.view.plans[node] = m.Plan(epoch=1, revision=1, gateways=[task])
            self.view.nodes.update(node, m.NodeState(state="ready", boot="1"))
            self.announcer.changed("node", node)
            self.announcer.changed("task", task)
        self.published()

    def published(self) -> set[str]:
        """Returns the topics of what was published since the last call."""
        self.loop.advance(0.2)
        topics = {one.message.topic for one in self.link.published}
        self.link.published.clear()
        return topics


def test_a_load_changes_the_document_of_its_node_and_no_task_is_looked_at() -> None:
    house = House()
    before, house.view.loads["a"] = house.view.counts, m.NodeLoad(queues={"x": 3})
    house.announcer.changed("node", "a")
    assert house.published() == {"home/bridge/node/a"}
    assert house.view.counts == before


def test_a_lost_node_changes_its_tasks_and_the_counts() -> None:
    house = House()
    house.view.nodes.update("a", m.NodeState(state="lost", boot="1"))
    for kind in ("node", "presence"):
        house.announcer.changed(kind, "a")
    assert house.published() == {"home/bridge/node/a", "home/bridge/task/porch", "home/bridge/planner"}
    assert house.view.planner_document().ready == 1
