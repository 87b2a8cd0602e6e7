"""The discovery documents: what Home Assistant demands of them, and that they name only topics that there are."""

import json
import re
from typing import Any

import pytest

from s2m3.homeassistant.detections import labels_of
from s2m3.homeassistant.discovery import Devices, without
from s2m3.schemas import messages as m
from s2m3.schemas import topics

DEVICES = Devices("s2m3/v1", "homeassistant", "0.1.0")
STEP = m.RouteStep(module="x", inputs={"a": "input.image"}, outputs=["label"])


def _route(inputs: dict[str, Any], answer: list[str]) -> m.RouteDoc:
    return m.RouteDoc(epoch=1, revision=1, model="vqa", inputs=inputs, answer=answer, deadline_s=9, steps={"s": STEP})


VQA = _route({"image": "image", "text": "text"}, ["label", "score"])
WORDS = _route({"audio": "audio"}, ["text"])
ALL = [DEVICES.node("pi", "0.1.0"), DEVICES.task("porch", VQA), DEVICES.task("ears", WORDS), DEVICES.planner()]


@pytest.mark.parametrize("document", ALL, ids=lambda d: d["dev"]["name"])
def test_a_device_has_what_home_assistant_demands(document: dict[str, Any]) -> None:
    assert document["dev"]["ids"]
    assert document["o"]["name"] == "s2m3"
    assert all({"p", "uniq_id", "avty"} <= component.keys() for component in document["cmps"].values())


def test_unique_ids_are_unique_over_all_devices() -> None:
    ids = [component["uniq_id"] for document in ALL for component in document["cmps"].values()]
    assert len(ids) == len(set(ids))


def test_every_topic_named_is_one_of_the_protocol() -> None:
    text = json.dumps(ALL)
    named = set(re.findall(r'"(s2m3/v1/[^"]+)"', text))
    families = [(path, path.ids("s2m3/v1", topic)) for topic in named for path in topics.ALL]
    assert len([path for path, ids in families if ids is not None]) == len(named)
    read = {path.pattern.split("/")[0] for path, ids in families if ids is not None}
    assert read == {"bridge", "control"}


def test_a_task_has_a_score_a_picture_and_a_question_only_if_its_model_has() -> None:
    assert {"score", "picture", "question"} <= DEVICES.task("porch", VQA)["cmps"].keys()
    assert not {"score", "picture", "question"} & DEVICES.task("ears", WORDS)["cmps"].keys()
    assert "answer" in DEVICES.task("new", None)["cmps"]


def test_an_entity_that_a_task_no_longer_has_is_named_as_gone() -> None:
    old, new = DEVICES.task("porch", VQA), DEVICES.task("porch", WORDS)
    gone = without(old, new)
    assert gone["cmps"]["picture"] == {"p": "image"}
    assert gone["cmps"]["answer"] == new["cmps"]["answer"]
    assert without(new, old) == old
    assert without(gone, new) == gone
    assert without(gone, old) == old


def test_of_many_entities_that_are_gone_those_that_went_last_are_named() -> None:
    document = DEVICES.task("porch", None)
    shown = document
    for number in range(300):
        more = document | {"cmps": document["cmps"] | {f"label-{number}": {"p": "sensor"}}}
        shown = without(shown, more)
    removed = without(shown, document)["cmps"].keys() - document["cmps"].keys()
    assert removed == {f"label-{number}" for number in range(100, 300)}


def test_two_sites_on_one_broker_have_devices_of_their_own() -> None:
    other = Devices("cabin/s2m3", "homeassistant", "0.1.0")
    assert other.topic("task", "porch") != DEVICES.topic("task", "porch")
    assert other.planner()["dev"]["ids"] != DEVICES.planner()["dev"]["ids"]
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", other.topic("task", "porch"))


def test_a_detector_has_a_count_and_a_binary_sensor_for_each_of_its_labels() -> None:
    doc = _route({"image": "image"}, ["boxes", "label", "score"]).model_copy(update={"model": "doorbell"})
    labels = labels_of(m.TaskSpec(model="doorbell"), doc)
    assert labels == ["person", "bicycle", "car", "vehicle", "cat", "dog"]
    components = DEVICES.task("door", doc, labels)["cmps"]
    counts = [component for key, component in components.items() if key.startswith("count-")]
    assert [component["name"] for component in counts] == [f"Detected {label}" for label in labels]
    assert {component["stat_cla"] for component in [*counts, components["detected"]]} == {"measurement"}
    assert components["seen-person"]["p"] == "binary_sensor"
    assert "detected" not in DEVICES.task("porch", VQA)["cmps"]


def test_the_labels_that_a_task_asks_for_are_its_detectors() -> None:
    doc = _route({"image": "image", "text": "texts"}, ["boxes", "label", "score"])
    asked = m.TaskSpec(model="owlvit", inputs={"text": ["a red car", "it's {{ 1 }}"]})
    assert labels_of(asked, doc) == ["a red car", "it's {{ 1 }}"]
    template = DEVICES.task("door", doc, labels_of(asked, doc))["cmps"]["seen-it-s-1"]["val_tpl"]
    assert template.count("{{") == template.count("}}") == 1
    assert labels_of(m.TaskSpec(model="detr"), doc) == []
    assert labels_of(asked, VQA) == []
