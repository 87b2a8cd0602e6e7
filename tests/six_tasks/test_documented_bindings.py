"""The bindings of docs/home-assistant.md, typed as they stand there, on the real tasks: each answers what it is for."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.bindings import payloads
from tests.six_tasks.conftest import READY_S
from tests.system.plain import PlainCaller
from tests.system.test_bindings import V3, _bridge_is

PAGE = (Path(__file__).parents[2] / "docs" / "home-assistant.md").read_text()
SAMPLES = Path(__file__).parents[2] / "s2m3" / "samples"
#: The tasks that the page speaks of, as it makes them.
TASKS = {
    "porch": m.TaskSpec(model="doorbell"),
    "commands": m.TaskSpec(model="spoken-intent", inputs={"text": ["switch a lamp on", "play music"]}),
}


def _documented() -> list[str]:
    section = PAGE.partition("## Bindings")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return [line for line in block.splitlines() if line.startswith("s2m3 bind ")]


def _of(word: str) -> str:
    (line,) = [line for line in _documented() if word in line]
    return line


pytestmark = pytest.mark.short_on("mosquitto")


@pytest.fixture(scope="module")
def house(zoo_cluster: Cluster) -> Iterator[Cluster]:
    """The six tasks, those of the page, and a bridge."""
    with Site(zoo_cluster.settings) as site:
        for name, spec in TASKS.items():
            add_task(site, name, spec)
        zoo_cluster.start_bridge()
        there = site.wait(lambda s: all(map(s.ready, [*TASKS, "vqa"])) and _bridge_is(s, "online"), READY_S)
        assert there, zoo_cluster.log("bridge")
        yield zoo_cluster
        for name in list(site.bindings):
            site.publish(topics.BIND, b"", binding=name)
        for name in TASKS:
            site.publish(topics.TASK, b"", task=name)
    zoo_cluster.kill("bridge")


def _type(house: Cluster, line: str, folder: Path) -> None:
    """Types a line of the page in a folder that has the picture it names."""
    shutil.copy(SAMPLES / "chelsea.jpg", folder / "table.png")
    command = [sys.executable, "-m", *shlex.split(line), "--port", str(house.settings.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", _documented())
def test_every_documented_binding_is_taken_and_active(house: Cluster, tmp_path: Path, line: str) -> None:
    _type(house, line, tmp_path)


def test_1_the_documented_doorbell_answers_a_ring_between_two_motions(house: Cluster, tmp_path: Path) -> None:
    _type(house, _of("doorbell/event"), tmp_path)
    motion = payloads.DOORBELL.replace(b'"ring"', b'"motion"')
    with PlainCaller(house.broker.port_v3, V3, ("home/door",)) as caller:
        for payload in (motion, payloads.DOORBELL, motion):
            caller.send("doorbell/event", payload)
        answer = caller.answer()
        assert (answer["status"], [box["label"] for box in answer["answer"]]) == ("ok", ["cat"])
        with Site(house.settings) as site:
            name = "porch-doorbell-event"  # its report comes once a second
            assert site.wait(lambda s: (s.reports[name].received, s.reports[name].answered) == (3, 1), READY_S)
            report = site.reports[name]
    assert (report.passed, report.dropped, report.failed, report.answered) == (2, 0, 0, 1)


def test_2_the_documented_button_answers_each_press_and_nothing_else(house: Cluster, tmp_path: Path) -> None:
    _type(house, _of("kitchen-button"), tmp_path)
    with PlainCaller(house.broker.port_v3, V3, ("home/button", "s2m3/v1/event")) as caller:
        for action in ("single", "double", "hold"):
            for payload in (payloads.zigbee_button(action), payloads.zigbee_button(""), payloads.ZIGBEE_BATTERY):
                caller.send("zigbee2mqtt/kitchen-button", payload)
        heard = [caller.message()]
        while sum(message.topic == "home/button" for message in heard) < 3:  # planner and nodes tell of themselves too
            heard.append(caller.message())
        answers = [json.loads(message.payload) for message in heard if message.topic == "home/button"]
        assert {answer["status"] for answer in answers} == {"ok"}
        with Site(house.settings) as site:
            name = "vqa-zigbee2mqtt-kitchen-button"  # its report comes once a second
            assert site.wait(lambda s: (s.reports[name].received, s.reports[name].answered) == (9, 3), READY_S)
            report = site.reports[name]
        heard += [caller.message() for _ in range(caller.answers.qsize())]
        assert sum(message.topic == "home/button" for message in heard) == 3
        assert not [message for message in heard if message.topic != "home/button" and b"failed" in message.payload]
    assert (report.passed, report.dropped, report.failed, report.answered) == (6, 0, 0, 3)
