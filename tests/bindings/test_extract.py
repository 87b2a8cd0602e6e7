"""What payloads of Frigate, Zigbee2MQTT and doorbells become: a task's inputs, or a clear word why not."""

import base64
import re
from typing import Any

import pytest

from s2m3.bindings.extract import Extract
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.plain import read_inputs
from s2m3.schemas.wire.values import Kind
from tests.bindings import payloads

KINDS: dict[str, Kind] = {"image": "image", "text": "texts"}


def _extract(**fields: Any) -> Extract:
    return Extract(Binding(source="a", task="porch", publish="b", **fields))


def test_a_snapshot_is_the_picture_as_it_is() -> None:
    extract = _extract(input="image", inputs={"text": ["a cat", "a person"]})
    inputs = extract.inputs(payloads.FRIGATE_SNAPSHOT, KINDS)
    assert inputs == {"image": payloads.FRIGATE_SNAPSHOT, "text": ["a cat", "a person"]}


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_base64_in_json_becomes_the_same_picture(prefix: str) -> None:
    extract = _extract(paths={"image": f"join('', ['{prefix}', image])"}, where="event == 'ring'")
    inputs = extract.inputs(payloads.DOORBELL, KINDS)
    assert inputs is not None
    assert read_inputs({"image": "image"}, inputs, {})["image"] == payloads.FRIGATE_SNAPSHOT


def test_a_frigate_event_is_passed_over_unless_it_is_the_one_wanted() -> None:
    extract = _extract(paths={"text": "after.label"}, where="type == 'new' && after.top_score > `0.9`")
    assert extract.inputs(payloads.frigate_event("new"), KINDS) == {"text": "person"}
    assert extract.inputs(payloads.frigate_event("update"), KINDS) is None
    assert extract.inputs(payloads.frigate_event("new", top_score=0.6), KINDS) is None


def test_values_of_a_zigbee_device_become_words() -> None:
    assert _extract(paths={"text": "action"}).inputs(payloads.ZIGBEE_BUTTON, KINDS) == {"text": "single"}
    assert _extract(paths={"text": "contact"}).inputs(payloads.ZIGBEE_CONTACT, KINDS) == {"text": "false"}
    several = _extract(paths={"text": "[temperature, humidity]"}).inputs(payloads.ZIGBEE_CLIMATE, KINDS)
    assert several == {"text": ["22.34", "45.61"]}


def test_where_without_paths_makes_a_message_a_mere_trigger() -> None:
    extract = _extract(inputs={"text": "x"}, where="contact == `false`")
    assert extract.inputs(payloads.ZIGBEE_CONTACT, KINDS) == {"text": "x"}
    assert extract.inputs(b'{"contact": true}', KINDS) is None


@pytest.mark.parametrize(
    ("value", "passes"), [("0", True), ("false", False), ("null", False), ('""', False), ("[]", False)]
)
def test_truth_is_jmespaths(value: str, passes: bool) -> None:  # noqa: FBT001  # the case's expectation
    found = _extract(where="x").inputs(b'{"x": %s}' % value.encode(), {})
    assert (found is not None) == passes


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\xff\xd8\xff", "the payload is not JSON"),
        (b"[" * 100_000, "the payload is not JSON"),
        (b"{}", "the payload has nothing at 'after.label'"),
        (b'"text"', "the payload has nothing at 'after.label'"),
    ],
)
def test_a_payload_without_what_the_path_wants_says_so(payload: bytes, why: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(why)):
        _extract(paths={"text": "after.label"}).inputs(payload, KINDS)


def test_a_function_on_the_wrong_type_is_bad_input_not_a_crash() -> None:
    with pytest.raises(BadInputError, match="length"):
        _extract(paths={"text": "length(contact)"}).inputs(payloads.ZIGBEE_CONTACT, KINDS)


@pytest.mark.parametrize("path", ["after.", "a[", "nofunction(a)"])
def test_what_is_not_jmespath_is_refused(path: str) -> None:
    with pytest.raises(BadInputError):
        _extract(paths={"text": path}).inputs(b"{}", KINDS)


def test_base64_that_is_none_is_the_tasks_bad_input() -> None:
    inputs = _extract(paths={"image": "x"}).inputs(b'{"x": "!!"}', KINDS)
    assert inputs is not None
    with pytest.raises(BadInputError, match="base64"):
        read_inputs({"image": "image"}, inputs, {})


def test_while_the_task_is_unknown_values_stay_as_they_are() -> None:
    word = base64.b64encode(b"x").decode()
    assert _extract(paths={"image": "x"}).inputs(b'{"x": "%s"}' % word.encode(), {}) == {"image": word}
