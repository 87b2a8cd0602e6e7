"""The first hour of docs/home-assistant.md beside a household's own Mosquitto, and leaving by docs/upgrading.md.

Mosquitto, Home Assistant's core and the site's processes are real. The commands are those of the document.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.settings import BrokerSettings
from tests.broker.test_link import linked, reached
from tests.conftest import has_mosquitto
from tests.homeassistant.core import HASS, HomeAssistant
from tests.secured.household import PASSWORD, USER, Household
from tests.secured.secured import ENVIRONMENT, ended, published

pytestmark = [
    pytest.mark.skipif(not HASS.exists(), reason="Home Assistant is not installed: make homeassistant (Python 3.13)"),
    pytest.mark.skipif(not has_mosquitto(), reason="mosquitto is not installed"),
    pytest.mark.timeout(900),
]
ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "s2m3" / "samples" / "chelsea.jpg"
#: The household's own device, which must be there before, during and after.
OWN = "homeassistant/sensor/own/config"
VARIANTS = {
    "above": "allow_anonymous false\npassword_file PASSWORDS\nlistener PORT\n",
    "below": "listener PORT\nallow_anonymous false\npassword_file PASSWORDS\n",
    "none": "allow_anonymous false\npassword_file PASSWORDS\n",
}
READY_S = 150.0


class FirstHour:
    """The household, and the processes that its person starts."""

    def __init__(self, folder: Path, variant: str) -> None:
        self.house = Household(folder, VARIANTS[variant])
        self.names_no_listener = variant == "none"
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def type(self, line: str) -> None:
        """Runs one line of the document: with the test's folder, host and ports, and its own Mosquitto."""
        for command in line.split("&&"):
            words = shlex.split(command.replace("/etc/s2m3", str(self.house.site)).replace("hub.local", "127.0.0.1"))
            env = dict(word.split("=", 1) for word in words if word.startswith("S2M3_"))
            words = [word for word in words if not word.startswith("S2M3_")]
            if words[0] == "systemctl":
                self._systemctl(words[1])
                continue
            assert words[0] == "s2m3", line
            if words[1:3] in (["secure", "init"], ["secure", "install"], ["secure", "uninstall"]):
                words += ["--mosquitto", str(self.house.main)]
            if words[1:3] == ["secure", "init"]:
                words += ["--first-port", str(self.house.first_port)]
            self._run(words[1:], env)

    def _systemctl(self, verb: str) -> None:
        assert self.house.process is not None
        if verb == "reload":
            self.house.process.send_signal(signal.SIGHUP)
            return
        self.house.stop()
        self.house.open_local_listener_on_its_port()
        is_joined = (self.house.conf_d / "00-s2m3.conf").exists()
        ports = [self.house.port, *([self.house.first_port] if is_joined else [])]
        self.house.start(*ports, local_port=self.names_no_listener and not is_joined)

    def _run(self, words: list[str], env: dict[str, str]) -> None:
        env = {**ENVIRONMENT, "S2M3_MEMORY_MB": "900", **env}
        command = [sys.executable, "-m", "s2m3", *(word for word in words if word != "&")]
        if words[-1] == "&":
            with (self.folder / f"{words[0]}.log").open("ab") as log:
                self.processes[words[0]] = subprocess.Popen(command, stdout=log, stderr=log, env=env)
            assert reached(lambda: f"{words[0]}_up" in self.log(words[0])), self.log(words[0])
            return
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_S, check=False, env=env)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        self.said = done.stdout

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def settings(self) -> BrokerSettings:
        return BrokerSettings(port=self.house.port, username=USER, password=SecretStr(PASSWORD))

    def end(self) -> None:
        for process in self.processes.values():
            ended(process)


def _documented(document: str, containing: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / document).read_text(), flags=re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture(params=VARIANTS)
def hour(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FirstHour]:
    tmp_path.chmod(0o755)
    made = FirstHour(tmp_path, request.param)
    yield made
    made.end()
    made.house.stop()


def _answered(hour: FirstHour, loop: Loop, camera: str) -> None:
    """Publishes a picture as Frigate does, on the household's listener, and waits for the caption there."""
    heard, subscribed = threading.Event(), threading.Event()
    with linked(hour.settings(), loop, "frigate") as link:
        link.subscribe(f"home/{camera}/caption", lambda _: heard.set(), on_subscribed=subscribed.set)
        assert subscribed.wait(READY_S)
        published(link, f"frigate/{camera}/person/snapshot", PICTURE.read_bytes())
        assert heard.wait(READY_S), hour.log("bridge")


def _retained(hour: FirstHour, loop: Loop) -> set[str]:
    found: set[str] = set()
    complete = threading.Event()

    def on_message(message: Message) -> None:
        if message.retain:
            found.add(message.topic)
        elif message.topic == "complete":
            complete.set()

    with linked(hour.settings(), loop, "looks") as link:
        link.subscribe("#", on_message)
        published(link, "complete", b"x")
        assert complete.wait(READY_S)
    return found


def test_the_first_hour_and_leaving(hour: FirstHour, loop: Loop) -> None:
    house = hour.house
    before = house.files()
    house.start(local_port=hour.names_no_listener)
    link = Link(hour.settings(), "own-device", loop)
    link.start()
    own = {"name": "Own", "unique_id": "own", "state_topic": "own/state", "object_id": "own"}
    published(link, OWN, json.dumps(own).encode(), retain=True)
    login = {"username": USER, "password": PASSWORD}
    with HomeAssistant(hour.folder / "hass", house.port, login=login) as hass:

        def own_device_works(value: str) -> None:
            published(link, "own/state", value.encode(), retain=True)
            hass.wait("sensor.own", value)

        assert reached(lambda: "sensor.own" in hass.states())
        own_device_works("1")
        for line in _documented("home-assistant.md", "secure init"):
            if not line.startswith(("pip ", "python ")):
                hour.type(line)
        own_device_works("2")
        hass.wait("sensor.s2m3_porch_problem", "none", timeout_s=READY_S)
        _answered(hour, loop, "yard")
        assert hass.wait("sensor.s2m3_porch_answer")["state"] == "cat"
        hour.type("s2m3 secure add /etc/s2m3 bridge bridge --read 'bell/#' && systemctl reload mosquitto")
        _answered(hour, loop, "garden")
        own_device_works("3")
        hour.end()  # systemctl disable --now …
        for line in _documented("upgrading.md", "neighbour leaving"):
            hour.type(f"{line} --yes" if line.endswith("s2m3 uninstall") else line)
        hass.wait_gone("s2m3_")
        for line in _documented("upgrading.md", "secure uninstall")[:2]:
            hour.type(line)
        own_device_works("4")
        assert [entity for entity in hass.states() if "s2m3" in entity] == []
    link.stop()
    assert house.files() == before
    assert _retained(hour, loop) == {OWN, "own/state"}
    assert not os.path.lexists(house.conf_d / "00-s2m3.conf")
