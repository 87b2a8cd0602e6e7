"""What the bridge publishes when something changes: of what changed, and not of the whole site."""

import json
from dataclasses import dataclass
from typing import Any

from s2m3.bridge.retention import Retention
from s2m3.broker.mqtt.retained_backlog import RetainedBacklog
from s2m3.homeassistant.announcer import Announcer
from s2m3.homeassistant.discovery import Devices
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

    def __init__(self, devices: Devices | None = None) -> None:
        self.loop, self.view = ManualLoop(), Counted()
        self.link = RecordedLink(BrokerSettings(root="home"), "bridge", self.loop, connected=True)
        self.announcer = Announcer(
            self.link,  # type: ignore[arg-type]
            self.loop,  # type: ignore[arg-type]
            self.view,
            devices,
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


DEVICES = Devices("home", "homeassistant", "0.1.0")
PORCH = DEVICES.topic("task", "porch")


def with_picture(house: House) -> None:
    house.view.routes["porch"] = house.view.routes["porch"].model_copy(update={"inputs": {"image": "image"}})
    house.announcer.changed("task", "porch")


def without_picture(house: House) -> None:
    house.view.routes["porch"] = house.view.routes["porch"].model_copy(update={"inputs": {"text": "text"}})
    house.announcer.changed("task", "porch")


def newest(house: House) -> dict[str, Any]:
    """What a bridge with a full queue sends: of all that waits for a topic the newest."""
    house.loop.advance(0.2)
    waiting = RetainedBacklog[bytes]()
    for one in house.link.published:
        waiting.put(one.message.topic, one.message.payload, len(one.message.payload))
    found = [payload for payload in iter(waiting.take, None) if b"cmps" in payload]
    return next(document for document in map(json.loads, found) if "porch" in document["dev"]["name"])


def test_an_entity_that_went_is_removed_by_the_newest_document_too() -> None:
    """Of what waits for one topic in a full queue the newest alone is sent."""
    house = House(DEVICES)
    with_picture(house)
    assert "uniq_id" in newest(house)["cmps"]["picture"]
    without_picture(house)
    assert newest(house)["cmps"]["picture"] == {"p": "image"}
    house.view.routes["porch"] = house.view.routes["porch"].model_copy(update={"answer": ["label", "score"]})
    house.announcer.changed("task", "porch")
    found = newest(house)
    assert (found["cmps"]["picture"], "uniq_id" in found["cmps"]["score"]) == ({"p": "image"}, True)
    with_picture(house)
    assert "uniq_id" in newest(house)["cmps"]["picture"]


def test_a_task_that_comes_back_as_another_removes_what_it_had_before() -> None:
    """Its removal may have waited in a full queue, where the new document took its place."""
    house = House(DEVICES)
    with_picture(house)
    house.loop.advance(0.2)
    spec = house.view.tasks.pop("porch")
    house.announcer.forget("task", "porch")
    assert house.link.at(PORCH)[-1] == b""
    house.view.tasks["porch"] = spec
    without_picture(house)
    assert newest(house)["cmps"]["picture"] == {"p": "image"}


def test_while_messages_are_held_back_a_removal_is_not_lost() -> None:
    house = House(DEVICES)
    with_picture(house)
    house.loop.advance(0.2)
    house.announcer.hold()
    without_picture(house)
    house.loop.advance(0.2)
    house.view.routes["porch"] = house.view.routes["porch"].model_copy(update={"answer": ["label", "score"]})
    house.announcer.changed("task", "porch")
    house.loop.advance(0.2)
    house.announcer.release()
    assert json.loads(house.link.at(PORCH)[-1])["cmps"]["picture"] == {"p": "image"}


def test_what_is_remembered_of_removed_tasks_is_bounded() -> None:
    house = House(DEVICES)
    for number in range(300):
        house.view.tasks[f"t{number}"] = m.TaskSpec(model="vqa")
        house.announcer.changed("task", f"t{number}")
        house.loop.advance(0.2)
        del house.view.tasks[f"t{number}"]
        house.announcer.forget("task", f"t{number}")
    known = house.announcer._shown  # noqa: SLF001  # a bound
    assert len(known) <= 100 + len(house.view.tasks) + 3
    assert DEVICES.topic("task", "t299") in known


def test_the_removal_of_a_device_goes_before_the_topics_that_it_refers_to_also_from_a_full_queue() -> None:
    house = House(DEVICES)
    house.loop.advance(0.2)
    del house.view.tasks["porch"]
    house.announcer.forget("task", "porch")
    waiting = RetainedBacklog[tuple[str, bytes]]()
    for one in house.link.published:
        waiting.put(one.message.topic, (one.message.topic, one.message.payload), len(one.message.payload))
    cleared = [topic for topic, payload in iter(waiting.take, None) if not payload]
    assert cleared[0] == PORCH
    assert "home/bridge/task/porch" in cleared
