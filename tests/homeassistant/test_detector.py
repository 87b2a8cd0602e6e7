"""A camera's picture at Home Assistant's own core: counts, binary sensors, the boxes on the picture, the blueprint."""

from pathlib import Path

import pytest

from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.homeassistant.core import HASS, HomeAssistant
from tests.system.plain import PlainCaller
from tests.zoo.samples import sample

pytestmark = [
    pytest.mark.skipif(not HASS.exists(), reason="Home Assistant is not installed: make homeassistant (Python 3.13)"),
    pytest.mark.timeout(600),
    pytest.mark.long,
]
TELL = """
- id: s2m3_camera
  alias: Camera
  use_blueprint:
    path: s2m3/camera.yaml
    input:
      answered: event.s2m3_door_answered
      picture: image.s2m3_door_picture
      labels: [person]
      quiet: 0
      actions:
        - action: input_text.set_value
          target: {entity_id: input_text.told}
          data: {value: "{{ seen }} {{ counts.person }} {{ photo | length > 20 }} {{ topic }}"}
"""


def test_what_a_camera_sees_is_counted_shown_and_told(tmp_path: Path) -> None:
    with Cluster({"pi": 900.0}, threads=1, bridge=True) as cluster, Site(cluster.settings) as site:
        add_task(site, "door", m.TaskSpec(model="doorbell"))
        binding = Binding(source="cam/+/snapshot", task="door", input="image", publish="home/{1}/seen", every_s=0.1)
        site.publish(topics.BIND, binding.encode(), binding="door")
        assert site.wait(lambda s: s.ready("door") and len(s.reports) == 1, 120), site.reports
        home = HomeAssistant(tmp_path / "hass", cluster.broker.port_v3, TELL)
        configuration = tmp_path / "hass" / "configuration.yaml"
        configuration.write_text(configuration.read_text() + "input_text:\n  told:\n")
        with home, PlainCaller(cluster.broker.port_v3, 4, ("home/#",)) as camera:
            home.wait("sensor.s2m3_door_detected_person", "unknown", "0")
            camera.send("cam/porch/snapshot", sample("astronaut.jpg"))
            counted = home.wait("sensor.s2m3_door_detected_person", "1")
            assert counted["attributes"]["state_class"] == "measurement"
            home.wait("binary_sensor.s2m3_door_sees_person", "on")
            home.wait("binary_sensor.s2m3_door_sees_cat", "off")
            assert home.wait("sensor.s2m3_door_detected", "1")["attributes"]["person"] == 1
            home.wait("input_text.told", "person 1 True cam/porch/snapshot")
            home.wait_known("image.s2m3_door_picture")
            assert home.image("image.s2m3_door_picture") != sample("astronaut.jpg")  # its box is drawn on it
            camera.send("cam/porch/snapshot", sample("gravel.jpg"))
            home.wait("binary_sensor.s2m3_door_sees_person", "off")
            home.wait("sensor.s2m3_door_detected", "0")
            home.wait("input_text.told", "person 1 True cam/porch/snapshot")
