"""Home Assistant's own core on the shipped secured Mosquitto: its password over TLS lets it see, ask and order."""

from collections.abc import Iterator

import pytest

from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import has_mosquitto
from tests.homeassistant.core import HASS, HomeAssistant
from tests.secured.secured import SecuredSite, ended, secure, short_folder

pytestmark = [
    pytest.mark.skipif(not HASS.exists(), reason="Home Assistant is not installed: make homeassistant (Python 3.13)"),
    pytest.mark.skipif(not has_mosquitto(), reason="mosquitto is not installed"),
    pytest.mark.timeout(300),
]
READY_S = 240.0


@pytest.fixture
def site() -> Iterator[SecuredSite]:
    """Broker, planner, one light agent and the bridge, each with its own login."""
    with short_folder() as folder:
        made = SecuredSite(folder)
        logins = ("agent:a", "bridge:bridge", "home-assistant:house")
        secure("init", made.folder, "--host", "127.0.0.1", *(word for login in logins for word in ("--add", login)))
        made.start()
        agent = made.spawn("a", "agent", "--memory-mb", "150")
        processes = [agent, made.spawn("planner", "planner"), made.spawn("bridge", "bridge")]
        try:
            yield made
        finally:
            for process in processes:
                ended(process)
            made.stop()


def test_home_assistant_with_its_login_sees_what_there_is_and_gives_orders(
    site: SecuredSite, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = site.settings("house")
    assert settings.password is not None
    assert settings.tls_ca is not None
    login = {
        "username": "house",
        "password": settings.password.get_secret_value(),
        "certificate": settings.tls_ca.read_text(),
    }
    with (
        Site(site.settings("operator")) as seen,
        HomeAssistant(tmp_path_factory.mktemp("hass"), settings.port, login=login) as hass,
    ):
        seen.publish(topics.TASK, m.TaskSpec(model="noop").encode(), task="noop")
        hass.wait("sensor.s2m3_noop_problem", "none", timeout_s=READY_S)
        hass.wait("binary_sensor.s2m3_node_a_connectivity", "on")
        hass.call("mqtt", "publish", topic="s2m3/v1/request/noop", payload='{"inputs": {"left": 1, "right": 2}}')
        answer = hass.wait("sensor.s2m3_noop_answer", "[1, 2]", timeout_s=READY_S)
        assert answer["attributes"]["source"] == "plain"
        hass.call("button", "press", entity_id="button.s2m3_node_a_drain")
        assert seen.wait(lambda s: s.nodes.state("a") == "draining", READY_S)
        assert [line for line in hass.log.splitlines() if "components.mqtt" in line] == []
