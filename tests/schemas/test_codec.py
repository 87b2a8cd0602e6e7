"""Work and Answer on the wire: what goes in comes out, and whatever else comes in is only ever `bad_input`."""

import datetime as dt
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s2m3.schemas.errors import BadInputError, BusyError, S2M3Error
from s2m3.schemas.wire.codec import attempt_of, decode_answer, decode_work, encode_answer, encode_work
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Hop, Timing, Work
from tests.schemas.test_values import TENSORS

REQUEST = bytes(range(16))
INBOX = "s2m3/v1/client/me/in"
HOPS = {
    "image": Hop("vit", "pi5", {"picture": "input.image"}, ("embedding",)),
    "rank": Hop("cosine", "nuc", {"left": "image.embedding", "top": "input.top"}, ("label",)),
}
WORK = Work(REQUEST, "porch", "image", 1, 7, INBOX, {"picture": b"jpeg"}, HOPS, 1500.0)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
numbers = st.floats(allow_nan=False)
values = st.recursive(
    plain | numbers | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names.filter(lambda n: n not in {"dtype", "shape", "bytes"}), inner, max_size=3)
    ),
    max_leaves=6,
)
timings = st.dictionaries(
    st.sampled_from(["image", "rank"]),
    st.builds(Timing, ids, st.floats(0, 1e6).map(lambda x: round(x, 3)), st.just(1.5), st.integers(1, 64)),
)


def same(one: Value, other: Value) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and pack(one) == pack(other)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return type(one) is type(other) and bool(one == other)


def pack(array: Any) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.name, array.shape, array.tobytes()


def decode(payload: bytes, user: dict[str, str] | None = None) -> Work:
    user = {"step": "image"} if user is None else user
    return decode_work(payload, request=REQUEST, reply_to=INBOX, user=user)


def document(**changes: Any) -> dict[str, Any]:
    payload, _ = encode_work(WORK)
    return {**msgpack.unpackb(payload), **changes}


# ---- there and back -----------------------------------------------------------------------------------------------


@given(values, timings, st.integers(1, 10**9), st.integers(0, 10**14), st.floats(-1e3, 86_400_000.0))
def test_work_comes_back_as_it_was(
    value: Value, took: dict[str, Timing], attempt: int, epoch: int, ms_left: float
) -> None:
    work = replace(
        WORK, inputs={"picture": value}, timings=took, attempt=attempt, epoch=epoch, ms_left=round(ms_left, 3)
    )
    payload, user = encode_work(work)
    back = decode(payload, dict(user))
    assert same(back.inputs["picture"], value)
    assert replace(back, inputs=work.inputs) == work


@given(st.dictionaries(names, values, max_size=3), timings, st.integers(1, 10**6))
def test_an_answer_comes_back_as_it_was(outputs: dict[str, Value], took: dict[str, Timing], attempt: int) -> None:
    answer = Answer(REQUEST, "rank", attempt, outputs, took)
    payload, user = encode_answer(answer)
    back = decode_answer(payload, request=REQUEST, user=dict(user))
    assert same(dict(back.outputs), outputs)
    assert replace(back, outputs=outputs) == answer


def test_an_error_answer_keeps_its_class_step_and_node() -> None:
    payload, user = encode_answer(Answer(REQUEST, "image", 3, error=BusyError("64 wait", step="image", node="pi5")))
    back = decode_answer(payload, request=REQUEST, user=dict(user))
    assert isinstance(back.error, BusyError)
    assert back.error.as_dict() == {"code": "busy", "detail": "64 wait", "step": "image", "node": "pi5"}
    assert (back.attempt, back.outputs) == (3, {})


def test_the_properties_name_step_attempt_and_epoch() -> None:
    _, user = encode_work(replace(WORK, attempt=2))
    assert user == (("step", "image"), ("attempt", "2"), ("epoch", "7"))


def test_numpy_scalars_travel_as_numbers() -> None:
    payload, user = encode_work(replace(WORK, inputs={"picture": [np.float32(0.5), np.int64(3), np.bool_(1)]}))
    assert decode(payload, dict(user)).inputs["picture"] == [0.5, 3, True]


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, 1j, np.zeros(2, np.complex64), 2**70, "\ud800", dt.datetime.now(dt.UTC)]
)
def test_what_has_no_wire_form_is_not_sent(value: Any) -> None:
    with pytest.raises(BadInputError):
        encode_work(replace(WORK, inputs={"picture": value}))


def test_what_nests_without_end_is_not_sent() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadInputError):
        encode_work(replace(WORK, inputs={"picture": endless}))


# ---- what is refused ----------------------------------------------------------------------------------------------


def refused(payload: bytes, user: dict[str, str] | None = None) -> str:
    with pytest.raises(BadInputError) as raised:
        decode(payload, user)
    return raised.value.detail


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"": 1}}, "inputs"),
        ({"inputs": [1]}, "inputs"),
        ({"route": {}}, "route"),
        ({"route": {"Image": {}}}, "route.Image"),
        ({"route": {"image": {"module": "a/b", "node": "n", "inputs": {"x": "input.x"}, "outputs": []}}}, "module"),
        ({"route": {"image": {"module": "m", "node": "n", "inputs": {}, "outputs": []}}}, "inputs"),
        ({"ms_left": float("nan")}, "ms_left"),
        ({"ms_left": float("inf")}, "ms_left"),
        ({"ms_left": 1e12}, "ms_left"),
        ({"ms_left": None}, "ms_left"),
        ({"timings": {"image": {"node": "n", "queued_ms": float("inf"), "run_ms": 1, "batch": 1}}}, "timings"),
        ({"task": 5}, "task"),
        ({"inputs": {"other": 1}}, "takes no input 'other'"),
        ({"inputs": {"picture": {b"key": 1}}}, "not text"),
        ({"inputs": {"picture": {"dtype": "float32", "shape": [2**40, 2**40, 0], "bytes": b""}}}, "shape"),
        ({"inputs": {"picture": {"dtype": "float32", "shape": [3], "bytes": b"\0"}}}, "is 12 bytes, not 1"),
        ({"inputs": {"picture": {"dtype": "object", "shape": [1], "bytes": b"\0" * 8}}}, "dtype"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes: dict[str, Any], where: str) -> None:
    assert where in refused(msgpack.packb(document(**changes)))


def test_more_than_64_steps_are_refused() -> None:
    hop = {"module": "m", "node": "n", "inputs": {"x": "input.x"}, "outputs": []}
    assert "route" in refused(msgpack.packb(document(route={f"s{i}": hop for i in range(65)})))


@pytest.mark.parametrize("ref", ["nowhere.embedding", "image.other", "image", ""])
def test_a_route_that_takes_what_no_step_is_asked_for_is_refused(ref: str) -> None:
    route = document()["route"]
    route["rank"]["inputs"]["left"] = ref
    assert "rou" in refused(msgpack.packb(document(route=route)))


@pytest.mark.parametrize("step", ["", "other", "rank.label", "im\0age"])
def test_a_step_that_is_not_in_the_route_is_refused(step: str) -> None:
    assert "is not in the message's route" in refused(encode_work(WORK)[0], {"step": step})
    assert "is not in the message's route" in refused(encode_work(WORK)[0], {})


@pytest.mark.parametrize("name", ["attempt", "epoch"])
@pytest.mark.parametrize("text", ["", "-1", "1.5", "two", "\u0663", "1" * 16, " 1"])
def test_a_counter_that_is_no_small_whole_number_is_refused(name: str, text: str) -> None:
    assert name in refused(encode_work(WORK)[0], {"step": "image", name: text})


def test_the_attempt_of_a_message_that_makes_no_sense_is_1() -> None:
    assert attempt_of({"attempt": "7"}) == 7
    assert attempt_of({"attempt": "x"}) == attempt_of({}) == 1


@pytest.mark.parametrize("request_id", [None, b"", b"\0" * 15, b"\0" * 17])
def test_correlation_data_of_another_length_is_refused(request_id: bytes | None) -> None:
    payload, user = encode_work(WORK)
    with pytest.raises(BadInputError, match="16 bytes"):
        decode_work(payload, request=request_id, reply_to=INBOX, user=dict(user))
    with pytest.raises(BadInputError, match="16 bytes"):
        decode_answer(payload, request=request_id, user={})


@pytest.mark.parametrize("reply_to", [None, ""])
def test_work_without_a_response_topic_is_refused(reply_to: str | None) -> None:
    payload, user = encode_work(WORK)
    with pytest.raises(BadInputError, match="response topic"):
        decode_work(payload, request=REQUEST, reply_to=reply_to, user=dict(user))


@pytest.mark.parametrize(
    "value",
    [
        msgpack.Timestamp(1, 2),
        msgpack.ExtType(5, b"pickle"),
        msgpack.ExtType(42, b""),
        [[msgpack.Timestamp(0)]],
    ],
)
def test_extension_types_and_timestamps_are_refused(value: Any) -> None:
    refused(msgpack.packb(document(inputs={"picture": value})))


def test_values_that_nest_deeper_than_16_are_refused() -> None:
    deep: Any = 1
    for _ in range(16):
        deep = [deep]
    assert decode(msgpack.packb(document(inputs={"picture": deep}))).inputs["picture"] == deep
    assert "deeper" in refused(msgpack.packb(document(inputs={"picture": [deep]})))


@pytest.mark.parametrize("byte", [b"\x91", b"\x81\xa1k", b"\x81"])
def test_a_bomb_of_nesting_is_refused(byte: bytes) -> None:
    refused(byte * 100_000)


@pytest.mark.parametrize("head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_a_length_that_lies_is_refused_without_taking_memory(head: bytes) -> None:
    refused(head + b"\xc0")


# ---- anything at all ----------------------------------------------------------------------------------------------

SEEDS = (
    encode_work(WORK)[0],
    encode_work(replace(WORK, inputs={"picture": np.ones((2, 3), np.float32)}, timings={"x": Timing("n", 1, 2, 3)}))[0],
    encode_answer(Answer(REQUEST, "rank", 1, {"label": ["a", {"b": 1.5}], "t": np.arange(3)}))[0],
    encode_answer(Answer(REQUEST, "rank", 1, error=BusyError("full", node="pi5")))[0],
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    payload = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(payload) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                payload[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del payload[at : at + draw(st.integers(1, 8))]
            case 2:
                payload[at:at] = draw(st.binary(max_size=8))
            case _:
                del payload[at:]
    return bytes(payload)


def harmless(payload: bytes, user: dict[str, str]) -> None:
    try:
        decode_work(payload, request=REQUEST, reply_to=INBOX, user=user)
    except BadInputError as error:
        assert len(error.detail) < 2_000  # noqa: PT017  # it may also be harmless
    try:
        answer = decode_answer(payload, request=REQUEST, user=user)
    except BadInputError:
        return
    assert answer.error is None or isinstance(answer.error, S2M3Error)


@settings(max_examples=1500)
@given(mutated())
def test_a_mangled_payload_raises_nothing_but_bad_input(payload: bytes) -> None:
    harmless(payload, {"step": "image", "attempt": "1", "epoch": "0"})


@settings(max_examples=1000)
@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["step", "attempt", "epoch"]), st.text(max_size=20)))
@example(b"", {})
def test_random_bytes_raise_nothing_but_bad_input(payload: bytes, user: dict[str, str]) -> None:
    harmless(payload, user)


@settings(max_examples=500)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "task": values,
            "inputs": st.dictionaries(names, values, max_size=2) | values,
            "route": st.dictionaries(names | st.just("image"), values, max_size=2) | values,
            "ms_left": plain | st.floats(),
            "timings": values,
            "outputs": values,
            "error": values,
        },
    )
)
def test_msgpack_of_another_shape_raises_nothing_but_bad_input(document: dict[str, Any]) -> None:
    harmless(msgpack.packb(document, default=lambda a: a.tolist()), {"step": "image"})


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=3)), st.data())
def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_refused(array: Any, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, array.nbytes))
    wrong = {"dtype": "float32", "shape": list(array.shape), "bytes": array.tobytes()[cut:]}
    assert "bytes, not" in refused(msgpack.packb(document(inputs={"picture": wrong})))
