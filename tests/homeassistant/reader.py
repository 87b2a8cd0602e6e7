"""Reads what is announced as Home Assistant does: over MQTT 3.1.1, with its templates and its rules of availability.

Not Home Assistant: where that is installed, test_homeassistant_itself.py asks the real one.
"""

import json
import threading
from collections.abc import Callable
from typing import Any, Self

import jinja2
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

UNAVAILABLE, UNKNOWN = "unavailable", "unknown"
_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701  # no HTML


class Reader:
    """Entities by unique id, kept up to date.

    Args:
        port: Of the broker, for MQTT 3.1.1.
        prefix: Of discovery.
    """

    def __init__(self, port: int, prefix: str = "homeassistant") -> None:
        self._prefix = prefix
        self._payloads: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self.arrivals: list[str] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self.client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def wait(self, until: Callable[["Reader"], bool], timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: until(self), timeout_s)

    def say(self, topic: str, payload: str) -> None:
        self.client.publish(topic, payload, qos=1).wait_for_publish(5)

    def forget(self) -> None:
        """As Home Assistant does when it starts again: it reads only what comes from now on."""
        with self._changed:
            self._payloads.clear()
            self.arrivals.clear()

    @property
    def devices(self) -> dict[str, dict[str, Any]]:
        start, end = f"{self._prefix}/device/", "/config"
        with self._changed:
            payloads = dict(self._payloads)
        return {
            topic[len(start) : -len(end)]: json.loads(payload)
            for topic, payload in payloads.items()
            if topic.startswith(start) and topic.endswith(end)
        }

    @property
    def topics(self) -> set[str]:
        """Those with something retained."""
        with self._changed:
            return set(self._payloads)

    def payload(self, topic: str) -> bytes | None:
        return self._payloads.get(topic)

    def state(self, device: str, component: str) -> str:
        """What the entity shows."""
        found = self.devices[device]["cmps"][component]
        if not all(self._rendered(a["t"], a["val_tpl"]) == "online" for a in found["avty"]):
            return UNAVAILABLE
        shown = self._rendered(found["stat_t"], found["val_tpl"])
        return UNKNOWN if shown in (None, "None") else shown

    def attributes(self, device: str, component: str) -> dict[str, Any]:
        found = self.devices[device]["cmps"][component]
        document = self._payloads[found["json_attr_t"]]
        read: dict[str, Any] = json.loads(document)
        return read

    def press(self, device: str, component: str) -> None:
        found = self.devices[device]["cmps"][component]
        self.say(found["cmd_t"], found["pl_prs"])

    def type(self, device: str, component: str, text: str) -> None:
        self.say(self.devices[device]["cmps"][component]["cmd_t"], text)

    def _rendered(self, topic: str, template: str) -> str | None:
        payload = self._payloads.get(topic)
        if payload is None:
            return None
        return _ENVIRONMENT.from_string(template).render(value_json=json.loads(payload))

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(f"{self._prefix}/#", 1), ("s2m3/v1/bridge/#", 1)])

    def _on_message(self, _client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.arrivals.append(message.topic)
            if message.payload:
                self._payloads[message.topic] = bytes(message.payload)
            else:
                self._payloads.pop(message.topic, None)
            self._changed.notify_all()
