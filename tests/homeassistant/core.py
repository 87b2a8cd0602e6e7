"""Home Assistant itself, as a process: onboarded, with MQTT set up, asked over its own REST interface."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from s2m3.broker.servers.launch import free_port

ROOT = Path(__file__).parents[2]
HASS = Path(os.environ.get("S2M3_TEST_HASS", ROOT / ".hass" / "bin" / "hass"))
_START_S = 120.0
_CONFIGURATION = """\
homeassistant:
  name: House
  time_zone: UTC
  country: DE
frontend:
api:
config:
image:
automation: !include automations.yaml
light:  # one that tells on MQTT what it was told
  - platform: template
    lights:
      kitchen:
        turn_on: {{action: mqtt.publish, data: {{topic: test/lamp, payload: "on"}}}}
        turn_off: {{action: mqtt.publish, data: {{topic: test/lamp, payload: "off"}}}}
http:
  server_host: 127.0.0.1
  server_port: {port}
logger:
  default: warning
"""


def _mqtt_entry(port: int, login: Mapping[str, str]) -> dict[str, Any]:
    """What the integration's dialogue stores when a user types host, port and a login."""
    entry: dict[str, Any] = {
        "created_at": "2025-01-01T00:00:00+00:00",
        "modified_at": "2025-01-01T00:00:00+00:00",
        "data": {"broker": "127.0.0.1", "port": port, "discovery": True, "discovery_prefix": "homeassistant", **login},
        "disabled_by": None,
        "discovery_keys": {},
        "domain": "mqtt",
        "entry_id": "01JQ0000000000000000000000",
        "minor_version": 2,
        "options": {},
        "pref_disable_new_entities": False,
        "pref_disable_polling": False,
        "source": "user",
        "subentries": [],
        "title": "MQTT",
        "unique_id": None,
        "version": 1,
    }
    return {"version": 1, "minor_version": 5, "key": "core.config_entries", "data": {"entries": [entry]}}


class HomeAssistant:
    """One process of it.

    Args:
        folder: For its configuration, log and store.
        mqtt_port: Of the broker, for MQTT 3.1.1.
        automations: YAML, as in automations.yaml.
        login: At the broker: username and password, certificate (of the authority, PEM).
    """

    def __init__(
        self, folder: Path, mqtt_port: int, automations: str = "", login: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._tokens: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        (folder / ".storage").mkdir(parents=True)
        (folder / "configuration.yaml").write_text(_CONFIGURATION.format(port=self._port))
        (folder / "automations.yaml").write_text(automations)
        blueprints = folder / "blueprints" / "automation" / "s2m3"
        blueprints.mkdir(parents=True)
        for blueprint in (ROOT / "deploy" / "homeassistant").glob("*.yaml"):
            shutil.copy(blueprint, blueprints)
        (folder / ".storage" / "core.config_entries").write_text(json.dumps(_mqtt_entry(mqtt_port, login or {})))

    @property
    def log(self) -> str:
        return (self._folder / "hass.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        self._onboard()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with (self._folder / "hass.log").open("ab") as log:
            command = [str(HASS), "-c", str(self._folder), "--skip-pip"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._is_up():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def states(self) -> dict[str, dict[str, Any]]:
        """All entities, by id."""
        return {state["entity_id"]: state for state in self._ask("/api/states")}

    def wait(self, entity: str, *states: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Waits until an entity shows one of some states; with none, until it is there and has one."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.states().get(entity)
            if found is not None and (found["state"] in states if states else found["state"] != "unavailable"):
                return found
            assert time.monotonic() < deadline, (entity, found, self.log[-2000:])
            time.sleep(0.1)

    def wait_known(self, entity: str, timeout_s: float = 60.0) -> None:
        """Waits until an entity shows anything."""
        deadline = time.monotonic() + timeout_s
        while (found := self.states().get(entity, {}).get("state")) in (None, "unavailable", "unknown"):
            assert time.monotonic() < deadline, (entity, found, self.log[-2000:])
            time.sleep(0.1)

    def wait_gone(self, word: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while left := [entity for entity in self.states() if word in entity]:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

    def call(self, domain: str, service: str, **data: Any) -> None:
        self._ask(f"/api/services/{domain}/{service}", data)

    def image(self, entity: str) -> bytes:
        request = self._request(f"/api/image_proxy/{entity}", None)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own process
            found: bytes = answer.read()
        return found

    def converse(self, agent: str, text: str) -> str:
        """What a conversation agent answers."""
        made = self._ask("/api/conversation/process", {"text": text, "agent_id": agent, "language": "en"})
        found: str = made["response"]["speech"]["plain"]["speech"]
        return found

    def continue_flow(self, flow: str, **typed: Any) -> dict[str, Any]:
        """What a user does next in a dialog: fills in its next form."""
        done: dict[str, Any] = self._ask(f"/api/config/config_entries/flow/{flow}", typed)
        return done

    def add_integration(self, domain: str, **typed: Any) -> dict[str, Any]:
        """What a user does under Settings, Devices: picks an integration and fills in its first form."""
        flow = self._ask("/api/config/config_entries/flow", {"handler": domain, "show_advanced_options": False})
        done: dict[str, Any] = self._ask(f"/api/config/config_entries/flow/{flow['flow_id']}", typed)
        return done

    def heard(self, entity: str, samples: bytes, language: str) -> dict[str, Any]:
        """What an entity of speech to text makes of mono samples of 16 bits, 16,000 a second."""
        request = self._request(f"/api/stt/{entity}", samples)
        kind = {"format": "wav", "codec": "pcm", "sample_rate": "16000", "bit_rate": "16", "channel": "1"}
        words = "; ".join(f"{name}={value}" for name, value in {**kind, "language": language}.items())
        request.add_header("X-Speech-Content", words)
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # our own process
            found: dict[str, Any] = json.load(answer)
        return found

    def said(self, entity: str, text: str) -> bytes:
        """The sound file that an entity of text to speech makes of a text."""
        made = self._ask("/api/tts_get_url", {"engine_id": entity, "message": text, "cache": False})
        with urllib.request.urlopen(self._request(made["path"], None), timeout=60) as answer:  # noqa: S310  # the same
            found: bytes = answer.read()
        return found

    def _ask(self, path: str, data: dict[str, Any] | None = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(self._request(path, body), timeout=30) as answer:  # noqa: S310  # the same
            return json.load(answer)

    def _request(self, path: str, body: bytes | None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self._tokens:
            headers["Authorization"] = f"Bearer {self._tokens['access_token']}"
        return urllib.request.Request(self._url + path, body, headers)  # noqa: S310  # our own process

    def _onboard(self) -> None:
        """As the first visit of the page does: an owner, and the rest as offered."""
        client = f"{self._url}/"
        owner = {"name": "Home", "username": "home", "password": "only-here", "client_id": client, "language": "en"}
        code = self._ask("/api/onboarding/users", owner)["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        body = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"{self._url}/auth/token", body, timeout=30) as answer:  # noqa: S310
            self._tokens = json.load(answer)
        for step in ("core_config", "analytics"):
            self._ask(f"/api/onboarding/{step}", {})
        self._ask("/api/onboarding/integration", {"client_id": client, "redirect_uri": client})

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/manifest.json", timeout=2):  # noqa: S310
                return True
        except OSError:
            return False
