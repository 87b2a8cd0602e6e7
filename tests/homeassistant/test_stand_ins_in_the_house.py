"""Home Assistant's own core sees which model answers while nodes are killed. Skipped where it is not installed."""

import time
from pathlib import Path
from typing import Any

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.homeassistant.core import HASS, HomeAssistant
from tests.system.plain import PlainCaller
from tests.system.ranked import BELL, MODELS, SAID, kill_the_best, ranked_site, whole

STAND_IN = "binary_sensor.s2m3_porch_on_a_stand_in"
ANSWER, EVENT = "sensor.s2m3_porch_answer", "event.s2m3_porch_answered"
#: An automation as a user writes it: somebody is told when the house is on a stand-in.
TOLD = """
- id: s2m3_told
  alias: Told
  triggers:
    - trigger: state
      entity_id: binary_sensor.s2m3_porch_on_a_stand_in
      to: ["on", "off"]
  actions:
    - action: mqtt.publish
      data:
        topic: test/told
        payload: >-
          {"state": "{{ trigger.to_state.state }}", "model": "{{ trigger.to_state.attributes.model }}"}
"""


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not HASS.exists(), reason="Home Assistant is not installed: make homeassistant (Python 3.13)")
def test_home_assistant_tells_of_a_stand_in_while_one_answers(kind: BrokerKind, tmp_path: Path) -> None:
    with ranked_site(kind) as house, Site(house.settings) as site:
        port = house.broker.port_v3
        with HomeAssistant(tmp_path, port, TOLD) as hass, PlainCaller(port, 4, (SAID, "test/told")) as caller:
            hass.wait(STAND_IN, "off")
            caller.send(BELL, b"ring")
            _heard(caller, rank=0, model="best")
            house.kill("planner")  # so that the stand-in stays
            _, rank = kill_the_best(house, site)
            shown = hass.wait(STAND_IN, "on")["attributes"]
            assert (shown["model"], shown["rank"], shown["device_class"]) == (MODELS[rank], rank, "problem")
            _heard(caller, state="on", model=MODELS[rank])
            before = hass.states()[EVENT]["state"]
            caller.send(BELL, b"ring")
            _heard(caller, rank=rank, model=MODELS[rank])
            event = _after(hass, before)
            assert (event["model"], event["rank"]) == (MODELS[rank], rank)
            answer = hass.states()[ANSWER]["attributes"]
            assert (answer["model"], answer["rank"]) == (MODELS[rank], rank)
            house.start_planner()
            assert hass.wait(STAND_IN, "off")["attributes"]["model"] == "best"
            _heard(caller, state="off", model="best")
            whole(house, site)
            assert not [line for line in hass.log.splitlines() if "components.mqtt" in line]


def _heard(caller: PlainCaller, **wanted: object) -> None:
    """Waits for a message that says all of this: the automation tells of the start too."""
    while not wanted.items() <= caller.answer().items():
        pass


def _after(hass: HomeAssistant, before: str) -> dict[str, Any]:
    """The attributes of the first answer after another one."""
    deadline = time.monotonic() + WAIT_S
    while (event := hass.wait(EVENT))["state"] == before:
        assert time.monotonic() < deadline, event
        time.sleep(0.1)
    found: dict[str, Any] = event["attributes"]
    return found
