"""Discovery documents for Home Assistant: one device with entities for each node, task and the planner. Pure: no I/O.

Names are those of https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, version 2024.11 and later.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from s2m3.homeassistant.detections import detection_entities
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.sessions import site_id

__all__ = ["Devices", "without"]

Component = dict[str, Any]
#: Most entities whose removal a document names.
_MOST_REMOVALS = 200
#: Home Assistant makes the text `None` an unknown state.
_NONE = "default('None')"
#: The message as JSON; {} for an empty payload, which clears a topic and is no JSON.
_JSON = "(value_json | default({}))"
#: Attributes of the entity that shows the device that a node computes on.
_HOST_MEMORY = "{{ {'memory_mb': value_json.memory_mb, 'host_mb': value_json.host_mb | default(none)} | tojson }}"
_MEASUREMENT = {"p": "sensor", "stat_cla": "measurement"}
_MEGABYTES = {**_MEASUREMENT, "dev_cla": "data_size", "unit_of_meas": "MB", "sug_dsp_prc": 0}
_MILLISECONDS = {**_MEASUREMENT, "dev_cla": "duration", "unit_of_meas": "ms", "sug_dsp_prc": 0}


@dataclass(frozen=True)
class Devices:
    """The discovery documents of one site.

    Args:
        root: First levels of our topics.
        prefix: First levels of Home Assistant's discovery topics.
        version: The release of this software.
        pictures: Whether pictures are published.
    """

    root: str
    prefix: str
    version: str
    pictures: bool = True

    def topic(self, kind: str, name: str = "") -> str:
        """Returns the topic of a device's document; an empty retained message on it removes device and entities."""
        return f"{self.prefix}/device/{self._id(kind, name)}/config"

    @property
    def birth(self) -> str:
        """The topic on which Home Assistant publishes that it has started (its birth message)."""
        return f"{self.prefix}/status"

    def node(self, node: str, version: str | None) -> dict[str, Any]:
        """Returns a node's document: connectivity, memory, queue, latency, and buttons to drain it and back."""
        state = topics.BRIDGE_NODE.at(self.root, node=node)
        drain, undrain = (topics.CONTROL.at(self.root, verb=verb) for verb in ("drain", "undrain"))
        components = {
            "connectivity": _connectivity(state, "value_json.connected") | {"avty": self._available()},
            "memory-free": _MEGABYTES | {"name": "Free memory", **_value(state, "free_mb")},
            "memory-used": _MEGABYTES | {"name": "Used memory", "ent_cat": "diagnostic", **_value(state, "used_mb")},
            "device": {"p": "sensor", "name": "Computes on", "ic": "mdi:expansion-card", "ent_cat": "diagnostic"}
            | _value(state, "device")
            | {"json_attr_t": state, "json_attr_tpl": _HOST_MEMORY},
            "queue": _MEASUREMENT
            | {"name": "Queue", "unit_of_meas": "items", "ic": "mdi:tray-full", **_value(state, "queue")},
            "latency": _MILLISECONDS
            | {"name": "Latency", "sug_dsp_prc": 1, "ent_cat": "diagnostic", **_value(state, "latency_ms")},
            "modules": _MEASUREMENT
            | {
                "name": "Modules",
                "unit_of_meas": "modules",
                "ic": "mdi:puzzle",
                "ent_cat": "diagnostic",
                "stat_t": state,
                "val_tpl": "{{ value_json.modules | count }}",
                "json_attr_t": state,
                "json_attr_tpl": "{{ {'modules': value_json.modules} | tojson }}",
            },
            "drain": _button("Drain", drain, json.dumps({"node": node}), "mdi:tray-remove"),
            "undrain": _button("Undo drain", undrain, json.dumps({"node": node}), "mdi:tray-plus"),
        }
        available = self._available(state, "value_json.connected")
        return self._device("node", node, components, available, model="node", version=version)

    def task(self, task: str, doc: m.RouteDoc | None, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Returns a task's document: its answer, its input, and whether it can serve requests.

        Args:
            task: The task's name.
            doc: The task's route document, with its inputs and outputs; None while it is not placed.
            labels: Those of a detector, as far as they are known.
        """
        if doc is None:
            return self._task(task, set(), set(), "task")
        model, kinds, outputs = doc.by_rank[0].model, set[str](doc.task_inputs.values()), set(doc.task_answer)
        return self._task(task, kinds, outputs, model, labels, ranked=bool(doc.ranks))

    def _task(
        self,
        task: str,
        kinds: set[str],
        outputs: set[str],
        model: str,
        labels: Sequence[str] = (),
        *,
        ranked: bool = False,
    ) -> dict[str, Any]:
        state, answer = (path.at(self.root, task=task) for path in (topics.BRIDGE_TASK, topics.BRIDGE_ANSWER))
        components: dict[str, Component] = {
            "answer": {"p": "sensor", "name": "Answer", "ic": "mdi:message-text", "json_attr_t": answer}
            | {"json_attr_tpl": f"{{{{ {_JSON} | tojson }}}}"}
            | _value(answer, "state"),
            "latency": _MILLISECONDS | {"name": "Latency", **_value(answer, "latency_ms")},
            "answered": {
                "p": "event",
                "name": "Answered",
                "ic": "mdi:message-flash",
                "evt_typ": ["answered", "failed"],
                "stat_t": topics.BRIDGE_ANSWERED.at(self.root, task=task),
            },
            "problem": {"p": "sensor", "name": "Problem", "ic": "mdi:alert-circle-outline", "ent_cat": "diagnostic"}
            | {"stat_t": state, "val_tpl": "{{ (value_json.problem | default('none'))[:255] }}"}
            | {"avty": self._available()},
        }
        components |= self._of_kinds(task, answer, kinds, outputs)
        if ranked:
            components["stand-in"] = _stand_in(state)
        if "boxes" in outputs:
            components |= detection_entities(answer, labels)
        available = self._available(state, "value_json.ready")
        return self._device("task", task, components, available, model=model)

    def gone(self, kind: str, name: str) -> dict[str, Any]:
        """Returns a document with all entities that a node or task may have: clearing it later removes all of them."""
        if kind == "node":
            return self.node(name, None)
        return self._task(name, {"image", "text"}, {"score", "boxes"}, "task", ranked=True)

    def planner(self) -> dict[str, Any]:
        """Returns the planner's document: whether there is one, counters, and a button to replan."""
        state = topics.BRIDGE_PLANNER.at(self.root)
        replan = topics.CONTROL.at(self.root, verb="replan")
        count = {"p": "sensor", "stat_cla": "measurement", "avty": self._available()}
        components = {
            "connectivity": _connectivity(state, "value_json.online") | {"avty": self._available()},
            "nodes": count | {"name": "Nodes", "unit_of_meas": "nodes", "ic": "mdi:chip", **_value(state, "nodes")},
            "tasks": count | {"name": "Tasks", "unit_of_meas": "tasks", "ic": "mdi:list-box", **_value(state, "tasks")},
            "ready": count
            | {"name": "Ready tasks", "unit_of_meas": "tasks", "ic": "mdi:list-status", **_value(state, "ready")},
            "replan": _button("Replan", replan, "{}", "mdi:map-search"),
        }
        return self._device(
            "planner",
            "",
            components,
            self._available(state, "value_json.online"),
            model="planner",
            version=self.version,
        )

    def _of_kinds(self, task: str, answer: str, kinds: set[str], outputs: set[str]) -> dict[str, Component]:
        """Returns the entities that depend on inputs and outputs: score, picture and question."""
        found: dict[str, Component] = {}
        if "score" in outputs:
            found["score"] = _MEASUREMENT | {"name": "Score", "sug_dsp_prc": 2, "ic": "mdi:percent-circle"}
            found["score"] |= _value(answer, "score")
        if kinds & {"image", "images"}:
            found["picture"] = self._picture(task)
        if kinds & {"text", "chat"}:
            found["question"] = {
                "p": "text",
                "name": "Question",
                "ic": "mdi:chat-question",
                "cmd_t": topics.BRIDGE_ASK.at(self.root, task=task),
                "stat_t": answer,
                "val_tpl": f"{{{{ {_JSON}.question | default('') }}}}",
            }
        return found

    def _picture(self, task: str) -> Component:
        """Returns the picture's entity, or, without pictures, the component that removes an earlier bridge's entity."""
        if not self.pictures:
            return {"p": "image"}
        topic = topics.BRIDGE_PICTURE.at(self.root, task=task)
        return {"p": "image", "name": "Picture", "img_t": topic, "cont_type": "image/jpeg"}

    def _available(self, topic: str | None = None, condition: str = "") -> list[Component]:
        """Returns the availability: the bridge is online, and optionally a condition on a topic's JSON holds."""
        bridge = {"t": topics.BRIDGE_STATE.at(self.root), "val_tpl": "{{ value_json.state }}"}
        if topic is None:
            return [bridge]
        return [bridge, {"t": topic, "val_tpl": f"{{{{ 'online' if {condition} else 'offline' }}}}"}]

    def _device(
        self,
        kind: str,
        name: str,
        components: Mapping[str, Component],
        available: Iterable[Component],
        *,
        model: str,
        version: str | None = None,
    ) -> dict[str, Any]:
        own = self._id(kind, name)
        title = {"node": f"S2M3 node {name}", "task": f"S2M3 {name}", "planner": "S2M3 planner"}[kind]
        device = {"ids": [own], "name": title, "mf": "S2M3", "mdl": model}
        if version:
            device["sw"] = version
        if kind != "planner":
            device["via_device"] = self._id("planner", "")
        shared = {"avty": list(available), "avty_mode": "all"}
        return {
            "dev": device,
            "o": {"name": "s2m3", "sw": self.version},
            "cmps": {
                key: {"uniq_id": f"{own}-{key}", "qos": 1, **shared, **component} if len(component) > 1 else component
                for key, component in components.items()
            },
        }

    def _id(self, kind: str, name: str) -> str:
        return "-".join(filter(None, (site_id(self.root), kind, name)))


def without(old: Mapping[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Returns the new document with the removal of the entities that only the old one has, or removes too.

    The removal of an entity that is not there does nothing. Of more than 200 those that were removed last are kept.
    """
    removed = ((key, {"p": component["p"]}) for key, component in old["cmps"].items() if key not in new["cmps"])
    return new | {"cmps": new["cmps"] | dict(islice(removed, _MOST_REMOVALS))}


def _value(topic: str, key: str) -> Component:
    return {"stat_t": topic, "val_tpl": f"{{{{ {_JSON}.{key} | {_NONE} }}}}"}


def _connectivity(topic: str, condition: str) -> Component:
    return {
        "p": "binary_sensor",
        "dev_cla": "connectivity",
        "stat_t": topic,
        "val_tpl": f"{{{{ 'ON' if {condition} else 'OFF' }}}}",
    }


def _stand_in(topic: str) -> Component:
    """Returns the entity that is on, a problem, while a model that is not the task's best answers."""
    return {
        "p": "binary_sensor",
        "name": "On a stand-in",
        "dev_cla": "problem",
        "ent_cat": "diagnostic",
        "stat_t": topic,
        "val_tpl": "{{ 'ON' if value_json.rank | default(0) > 0 else 'OFF' }}",
        "json_attr_t": topic,
        "json_attr_tpl": "{{ {'model': value_json.answers | default(none), 'rank': value_json.rank | default(0)} "
        "| tojson }}",
    }


def _button(name: str, topic: str, payload: str, icon: str) -> Component:
    return {"p": "button", "name": name, "cmd_t": topic, "pl_prs": payload, "ic": icon, "ent_cat": "config"}
