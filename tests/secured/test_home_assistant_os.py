"""Home Assistant OS: its Mosquitto app joined to a secured site by the shipped connection."""

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from s2m3.broker.servers.launch import free_port
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.broker.test_link import _wait_for
from tests.conftest import WAIT_S
from tests.secured.secured import ENVIRONMENT, SecuredSite, ended, restart
from tests.system.plain import PlainCaller

SHIPPED = Path(__file__).parents[2] / "deploy" / "homeassistant" / "mosquitto-app.conf"
DEVICE = "homeassistant/device/s2m3-task-noop/config"


@pytest.fixture
def app(running: SecuredSite, tmp_path: Path) -> Iterator[int]:
    """The port of the app's broker: open to the house, and joined to the site by the login `house`."""
    running.open().add("home-assistant", "house", "password", reads=["home/#"], writes=["frigate/#"])
    running.open().add("bridge", "bridge", "certificate", reads=["frigate/#"], writes=["home/#"])
    restart(running)
    password = running.settings("house").password
    assert password is not None
    text = SHIPPED.read_text().replace("hub.local:8884", f"127.0.0.1:{running.ports[8884]}")
    text = text.replace("/share/mosquitto/ca.crt", str(running.folder / "ca.crt"))
    text = text.replace("the password in logins/house/s2m3.toml", password.get_secret_value())
    (tmp_path / "customize").mkdir()
    (tmp_path / "customize" / "s2m3.conf").write_text(text)
    port, user = free_port(), pwd.getpwuid(os.geteuid()).pw_name
    main = tmp_path / "mosquitto.conf"
    main.write_text(f"user {user}\ninclude_dir {tmp_path}/customize\nlistener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = subprocess.Popen(["mosquitto", "-c", str(main)], stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    _wait_for(port)
    yield port
    ended(broker)


def test_28_home_assistant_on_the_apps_broker_sees_the_site_and_asks_it(running: SecuredSite, app: int) -> None:
    heard = (DEVICE, "s2m3/v1/response/noop", "s2m3/v1/bridge/answered/noop", "home/porch")
    binding = Binding(source="frigate/+", task="noop", input="left", inputs={"right": "r"}, publish="home/{1}")
    with Site(running.settings("operator")) as site, PlainCaller(app, paho.MQTTv311, heard) as home:
        while (discovered := home.message()).topic != DEVICE:  # answers of the test before may come first
            pass
        assert json.loads(discovered.payload)["o"]["name"] == "s2m3"
        home.send("s2m3/v1/request/noop", b'{"transaction": 28, "inputs": {"left": 1, "right": 2}}')
        answer = home.message()
        while answer.topic != "s2m3/v1/response/noop":
            answer = home.message()
        assert json.loads(answer.payload)["transaction"] == 28
        site.publish(topics.BIND, binding.encode(), binding="app")
        assert site.wait(lambda s: "app" in s.reports and s.reports["app"].state == "active", WAIT_S)
        home.send("frigate/porch", b"somebody")
        while answer.topic != "home/porch":
            answer = home.message()
        assert json.loads(answer.payload)["status"] == "ok"
        site.publish(topics.BIND, b"", binding="app")
        assert site.wait(lambda s: "app" not in s.reports, WAIT_S)
