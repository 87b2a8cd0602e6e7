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
        (b'{"x": NaN}', "the payload is not JSON"),
    ],
)
def test_a_payload_without_what_the_path_wants_says_so(payload: bytes, why: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(why)):
        _extract(paths={"text": "after.label"}).inputs(payload, KINDS)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" \r\n",
        b"null",
        b"{}",
        b'"text"',
        b'{"action": ""}',
        b'{"action": "  "}',
        b'{"action": null}',
        b'{"action": []}',
        b'{"action": [""]}',
        b'{"action": ["single", null]}',
        b'{"action": {}}',
        b'{"action": {"base64": ""}}',
        b'{"action": "data:image/jpeg;base64,"}',
        b'{"battery": 97}',
    ],
)
def test_2_nothing_at_a_path_is_nobody_s_question(payload: bytes) -> None:
    assert _extract(paths={"text": "action"}).inputs(payload, KINDS) is None


@pytest.mark.parametrize(
    ("value", "text"), [("0", "0"), ("false", "false"), ('"0"', "0"), ("12345678901234567890", None)]
)
def test_2_zero_and_false_are_values(value: str, text: str | None) -> None:
    inputs = _extract(paths={"text": "action"}).inputs(b'{"action": %s}' % value.encode(), KINDS)
    assert inputs == {"text": text or value}


@pytest.mark.parametrize(
    "fields", [{"input": "image"}, {"inputs": {"text": "x"}}, {"paths": {"text": "a"}}, {"where": "a"}]
)
def test_6_an_empty_payload_asks_nothing(fields: dict[str, Any]) -> None:
    for payload in (b"", b"\n"):
        assert _extract(**fields).inputs(payload, KINDS) is None


def _nested(depth: int) -> bytes:
    return b'{"action":' * depth + b'"x"' + b"}" * depth


DOUBLED = "|".join(["[@,@]"] * 60)


@pytest.mark.parametrize(
    ("payload", "path", "why"),
    [
        (_nested(65), "action", "levels"),
        (_nested(600), "action", "levels"),
        (_nested(100_000), "action", "levels"),
        (b"[%s]" % (b"0," * 200_000 + b"0"), "@", "values"),
        (b'{"action": "x"}', DOUBLED, "too much work"),
        (b'{"action": "x"}', f"{DOUBLED}|to_string(@)", "too much work"),
        (b'{"action": "x"}', f"({DOUBLED}) == ({DOUBLED})", "too much work"),
        (b'{"action": ["x"]}', "action|" + "|".join(["[@,@][]"] * 60), "too much work"),
        (b'{"action": "xxxxxxxx"}', "action|" + "|".join(["join('',[@,@])"] * 40), "too much work"),
        (b'{"action": "x"}', "action|" + "[" * 70 + "@" + "]" * 70, "levels"),
        (b'{"action": 1e999}', "ceil(action)", "infinity"),
        (b'{"action": "\\ud800"}', "action", "half a character"),
        (b'{"action": "\\ud800"}', "ceil(action)", r"ceil\(\).*\?"),
        (b'{"action": "x"}', "!" * 900 + "action", "path"),
    ],
)
def test_33_what_is_too_deep_too_much_or_breaks_a_function_is_bad_input(payload: bytes, path: str, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        _extract(paths={"text": path}).inputs(payload, KINDS)


def test_33_depth_that_devices_use_is_read() -> None:
    assert _extract(paths={"text": ".".join(["action"] * 60)}).inputs(_nested(60), KINDS) == {"text": "x"}


def test_33_a_picture_of_many_megabytes_may_be_put_together() -> None:
    payload = b'{"a": "%s"}' % (b"A" * 8_000_000)
    found = _extract(paths={"image": "join('', ['data:image/jpeg;base64,', a])"}).inputs(payload, KINDS)
    assert found is not None
    assert found["image"]["base64"] == "data:image/jpeg;base64," + "A" * 8_000_000


@pytest.mark.parametrize("path", ["a" * 1_001, "(" * 900 + "a" + ")" * 90])
def test_33_an_expression_is_bounded(path: str) -> None:
    with pytest.raises(BadInputError):
        _extract(paths={"text": path})


def test_a_text_is_neither_above_nor_below_a_number() -> None:
    extract = _extract(paths={"text": "battery"}, where="battery < `20`")
    assert extract.inputs(b'{"battery": "low"}', KINDS) is None
    assert extract.inputs(b'{"battery": 5}', KINDS) == {"text": "5"}


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
