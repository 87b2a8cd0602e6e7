"""Home Assistant's own core against a real site: entities, availability, restarts, removal. Skipped where it is not.

`make homeassistant` installs it (it needs Python 3.13); 2025.4 is what was tested.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.homeassistant.core import HASS, HomeAssistant
from tests.system.plain import PlainCaller

pytestmark = [
    pytest.mark.skipif(not HASS.exists(), reason="Home Assistant is not installed: make homeassistant (Python 3.13)"),
    pytest.mark.timeout(600),
]
ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "s2m3" / "samples"
TEXTS = ["a cat looking at you", "a cup of coffee on a table", "a rocket taking off"]
#: The blueprint at work, saying what it was given where the test hears it.
OURS = """
- id: s2m3_test
  alias: Test
  use_blueprint:
    path: s2m3/answer.yaml
    input:
      answered: event.s2m3_porch_answered
      answers: ["a cat looking at you"]
      above: 0.1
      actions:
        - action: mqtt.publish
          data: {topic: test/fired, payload: "{{ answer }} on {{ topic }}"}
"""


@pytest.fixture(scope="module")
def house(kind: BrokerKind) -> Iterator[Cluster]:
    """Two nodes with the tasks `porch` (which text fits the picture) and `ask` (a question about a picture); a shed."""
    nodes = {"pi": 900.0, "laptop": 900.0, "shed": 100.0}
    with Cluster(nodes, kind=kind, threads=1, bridge=True) as cluster, Site(cluster.settings) as site:
        add_task(site, "porch", m.TaskSpec(model="retrieval", inputs={"text": TEXTS}))
        add_task(site, "ask", m.TaskSpec(model="vqa"))
        porch = Binding(source="frigate/+/cat/snapshot", task="porch", input="image", publish="home/{1}/caption")
        table = Binding(source="table", task="ask", input="image", inputs={"text": "which shape?"}, publish="table/is")
        site.publish(topics.BIND, porch.encode(), binding="porch")
        site.publish(topics.BIND, table.encode(), binding="table")
        assert site.wait(lambda s: s.ready("porch") and s.ready("ask") and len(s.reports) == 2, 120), site.reports
        yield cluster


@pytest.fixture(scope="module")
def hass(house: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HomeAssistant]:
    documented = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "home-assistant.md").read_text(), flags=re.DOTALL)
    automations = "".join([*documented, OURS])
    with HomeAssistant(tmp_path_factory.mktemp("hass"), house.broker.port_v3, automations) as running:
        running.wait("binary_sensor.s2m3_planner_connectivity", "on")
        running.wait("sensor.s2m3_porch_problem", "none")
        yield running


def _say(house: Cluster, topic: str, payload: bytes) -> None:
    with PlainCaller(house.broker.port_v3, 4, ("nothing/here",)) as caller:
        caller.send(topic, payload)


def test_entities_appear_with_names_units_and_classes_that_make_sense(hass: HomeAssistant) -> None:
    states = hass.states()
    units = {
        "sensor.s2m3_node_laptop_free_memory": ("MB", "data_size", "S2M3 node laptop Free memory"),
        "sensor.s2m3_node_laptop_used_memory": ("MB", "data_size", "S2M3 node laptop Used memory"),
        "sensor.s2m3_node_laptop_latency": ("ms", "duration", "S2M3 node laptop Latency"),
        "sensor.s2m3_node_laptop_queue": ("items", None, "S2M3 node laptop Queue"),
        "sensor.s2m3_node_laptop_modules": ("modules", None, "S2M3 node laptop Modules"),
        "binary_sensor.s2m3_node_laptop_connectivity": (None, "connectivity", "S2M3 node laptop Connectivity"),
        "button.s2m3_node_laptop_drain": (None, None, "S2M3 node laptop Drain"),
        "button.s2m3_node_laptop_undo_drain": (None, None, "S2M3 node laptop Undo drain"),
        "sensor.s2m3_porch_answer": (None, None, "S2M3 porch Answer"),
        "sensor.s2m3_porch_score": (None, None, "S2M3 porch Score"),
        "sensor.s2m3_porch_latency": ("ms", "duration", "S2M3 porch Latency"),
        "sensor.s2m3_porch_problem": (None, None, "S2M3 porch Problem"),
        "event.s2m3_porch_answered": (None, None, "S2M3 porch Answered"),
        "image.s2m3_porch_picture": (None, None, "S2M3 porch Picture"),
        "text.s2m3_ask_question": (None, None, "S2M3 ask Question"),
        "button.s2m3_planner_replan": (None, None, "S2M3 planner Replan"),
        "sensor.s2m3_planner_nodes": ("nodes", None, "S2M3 planner Nodes"),
        "sensor.s2m3_planner_tasks": ("tasks", None, "S2M3 planner Tasks"),
        "sensor.s2m3_planner_ready_tasks": ("tasks", None, "S2M3 planner Ready tasks"),
    }
    names = ("unit_of_measurement", "device_class", "friendly_name")
    found = {entity: tuple(states[entity]["attributes"].get(name) for name in names) for entity in units}
    assert found == units
    assert "text.s2m3_porch_question" not in states
    assert [line for line in hass.log.splitlines() if "components.mqtt" in line] == []  # neither warning nor error
    assert float(states["sensor.s2m3_node_laptop_free_memory"]["state"]) > 0


def test_the_documented_automations_and_the_blueprint_are_valid(hass: HomeAssistant) -> None:
    states = hass.states()
    for name in ("who_is_at_the_door", "spoken_command", "test"):
        assert states[f"automation.{name}"]["state"] == "on", hass.log
    assert [line for line in hass.log.splitlines() if "automation" in line or "blueprint" in line] == []


def test_the_blueprint_acts_on_each_wanted_answer_also_on_the_same_again(house: Cluster, hass: HomeAssistant) -> None:
    with PlainCaller(house.broker.port_v3, 4, ("test/fired", "home/yard/caption")) as caller:
        for picture, fires in (("chelsea.jpg", True), ("coffee.jpg", False), ("chelsea.jpg", True)):
            caller.send("frigate/yard/cat/snapshot", (SAMPLES / picture).read_bytes())
            said = {caller.message().topic for _ in range(1 + fires)}
            assert said == ({"test/fired", "home/yard/caption"} if fires else {"home/yard/caption"})
    assert hass.states()["automation.test"]["state"] == "on"


def test_the_documented_automation_switches_the_lamp_that_was_spoken_of(house: Cluster, hass: HomeAssistant) -> None:
    spoken = Binding(source="satellite/+/audio", task="commands", input="audio", publish="home/{1}/command")
    with Site(house.settings) as site, PlainCaller(house.broker.port_v3, 4, ("test/lamp",)) as caller:
        texts = ["switch a lamp on", "play music"]
        add_task(site, "commands", m.TaskSpec(model="spoken-intent", inputs={"text": texts}))
        site.publish(topics.BIND, spoken.encode(), binding="commands")
        assert site.wait(lambda s: s.ready("commands") and "commands" in s.reports, 120), site.reports
        hass.wait("event.s2m3_commands_answered", "unknown")
        caller.send("satellite/kitchen/audio", (SAMPLES / "kitchen-light.flac").read_bytes())
        assert caller.message().payload == b"on", hass.log
        site.publish(topics.BIND, b"", binding="commands")
        site.publish(topics.TASK, b"", task="commands")
    hass.wait_gone("s2m3_commands_")


def test_a_cameras_picture_gets_its_answer_score_and_picture_onto_the_dashboard(
    house: Cluster, hass: HomeAssistant
) -> None:
    picture = (SAMPLES / "coffee.jpg").read_bytes()
    _say(house, "frigate/garden/cat/snapshot", picture)
    answer = hass.wait("sensor.s2m3_porch_answer", TEXTS[1])
    assert answer["attributes"]["topic"] == "frigate/garden/cat/snapshot"
    assert answer["attributes"]["outputs"]["ranking"][0]["label"] == TEXTS[1]
    assert 0 < float(hass.wait("sensor.s2m3_porch_score")["state"]) <= 1
    assert float(hass.wait("sensor.s2m3_porch_latency")["state"]) > 0
    assert hass.image("image.s2m3_porch_picture") == picture
    assert hass.wait("event.s2m3_porch_answered")["attributes"]["event_type"] == "answered"


def test_a_question_typed_on_the_dashboard_is_answered_about_the_last_picture(
    house: Cluster, hass: HomeAssistant
) -> None:
    _say(house, "table", (SAMPLES / "blue-circle.png").read_bytes())
    hass.wait("sensor.s2m3_ask_answer", "circle")
    hass.call("text", "set_value", entity_id="text.s2m3_ask_question", value="what is the color of the circle?")
    answer = hass.wait("sensor.s2m3_ask_answer", "blue")
    assert answer["attributes"]["source"] == "question"
    hass.wait("text.s2m3_ask_question", "what is the color of the circle?")


def test_a_failure_is_an_event_and_leaves_the_last_answer(house: Cluster, hass: HomeAssistant) -> None:
    before = hass.wait("event.s2m3_porch_answered")["state"]
    _say(house, "frigate/garden/cat/snapshot", b"no picture")
    deadline = time.monotonic() + WAIT_S
    while (event := hass.states()["event.s2m3_porch_answered"])["state"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert event["attributes"]["event_type"] == "failed"
    assert event["attributes"]["error"]["code"] == "bad_input"
    assert hass.states()["sensor.s2m3_porch_answer"]["state"] == TEXTS[1]


def test_a_dead_node_is_unavailable(house: Cluster, hass: HomeAssistant) -> None:
    house.kill("laptop")
    hass.wait("binary_sensor.s2m3_node_laptop_connectivity", "off")
    hass.wait("sensor.s2m3_node_laptop_free_memory", "unavailable")
    hass.wait("button.s2m3_node_laptop_drain", "unavailable")
    house.start_agent("laptop")
    hass.wait("binary_sensor.s2m3_node_laptop_connectivity", "on")
    hass.wait("sensor.s2m3_porch_problem", "none", timeout_s=120)


def test_after_a_restart_of_home_assistant_all_is_as_before(hass: HomeAssistant) -> None:
    before = {entity for entity in hass.states() if "s2m3" in entity}
    answer = hass.states()["sensor.s2m3_porch_answer"]["state"]
    hass.stop()
    hass.start()
    hass.wait("sensor.s2m3_porch_answer", answer)
    hass.wait("binary_sensor.s2m3_node_laptop_connectivity", "on")
    assert {entity for entity in hass.states() if "s2m3" in entity} == before


def test_after_a_restart_of_the_broker_all_is_available_again(house: Cluster, hass: HomeAssistant) -> None:
    house.broker.kill()
    hass.wait("sensor.s2m3_porch_answer", "unavailable")
    house.broker.start()
    hass.wait("binary_sensor.s2m3_planner_connectivity", "on", timeout_s=120)
    hass.wait("sensor.s2m3_porch_answer", TEXTS[1], timeout_s=120)


def test_the_bridges_death_makes_all_unavailable(house: Cluster, hass: HomeAssistant) -> None:
    house.kill("bridge")
    for entity in ("sensor.s2m3_porch_answer", "sensor.s2m3_porch_problem", "sensor.s2m3_planner_nodes"):
        hass.wait(entity, "unavailable")
    house.start_bridge()
    hass.wait("sensor.s2m3_planner_nodes", "3", timeout_s=120)


def test_a_task_removed_while_home_assistant_was_down_leaves_no_entity_over(
    house: Cluster, hass: HomeAssistant
) -> None:
    with Site(house.settings) as site:
        add_task(site, "brief", m.TaskSpec(model="vqa"))
        hass.wait("sensor.s2m3_brief_problem", "none", timeout_s=120)
        hass.stop()
        site.publish(topics.TASK, b"", task="brief")
        hass.start()
    hass.wait("sensor.s2m3_brief_problem", "unavailable", "unknown")  # its registry remembers
    hass.wait_gone("s2m3_brief_")


def test_a_task_and_a_node_that_went_while_all_were_down_leave_no_entity_over(
    house: Cluster, hass: HomeAssistant
) -> None:
    with Site(house.settings) as site:
        add_task(site, "late", m.TaskSpec(model="vqa"))
        hass.wait("sensor.s2m3_late_problem", "none", timeout_s=120)
        hass.wait("sensor.s2m3_node_shed_free_memory")
        hass.stop()
        house.kill("bridge")
        house.kill("shed")
        assert site.wait(lambda s: s.nodes.state("shed") == "lost", WAIT_S)
        site.publish(topics.TASK, b"", task="late")
        for left in (topics.NODE_PROFILE, topics.NODE_REPORTED, topics.NODE_STATE):
            site.publish(left, b"", node="shed")
        house.start_bridge("--forget-s", "1")
        assert site.wait(lambda _: house.log("bridge").count("event=forgotten") >= 2, WAIT_S), house.log("bridge")
        hass.start()
    for entity in ("text.s2m3_late_question", "sensor.s2m3_node_shed_free_memory"):
        hass.wait(entity, "unavailable", "unknown")  # its registry remembers
    hass.wait_gone("s2m3_late_")
    hass.wait_gone("s2m3_node_shed_")
    hass.wait("sensor.s2m3_porch_answer", TEXTS[1])


def test_a_task_that_is_removed_leaves_no_entity_over(house: Cluster, hass: HomeAssistant) -> None:
    with Site(house.settings) as site:
        site.publish(topics.BIND, b"", binding="table")
        site.publish(topics.TASK, b"", task="ask")
    hass.wait_gone("s2m3_ask_")
    assert "sensor.s2m3_porch_answer" in hass.states()
