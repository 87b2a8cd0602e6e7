"""Whoever passes a work message on passes on what it does not know: keys at each level, user properties, each byte."""

import struct
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.agents.serving.joins import Joins
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.parts import PieceRequest
from s2m3.schemas.wire.codec import (
    CONTENT_TYPE,
    decode_answer,
    decode_piece,
    decode_work,
    encode_answer,
    encode_piece,
    encode_work,
)
from s2m3.schemas.wire.generation import Options, Piece
from s2m3.schemas.wire.packing import pack_map, values_of
from s2m3.schemas.wire.part_pieces import decode_part_piece, encode_part_piece
from s2m3.schemas.wire.work import Answer, Hop, Timing, Work

REQUEST = bytes(range(16))
INBOX = "s2m3/v1/client/me/in"
HOPS = {
    "image": Hop("vit", "pi5", {"picture": "input.image"}, ("embedding",)),
    "rank": Hop("cosine", "nuc", {"left": "image.embedding"}, ("label",), Options(max_tokens=4), stream=True),
}
WORK = Work(
    REQUEST, "porch", "image", 1, 7, INBOX, {"picture": b"jpeg"}, HOPS, 1500.0, {"before": Timing("a", 1, 2, 3)}
)
#: Where a newer release may add a key: in the message, a step of the route, its options, a timing.
PLACES: tuple[tuple[str, ...], ...] = ((), ("route", "image"), ("route", "rank"), ("timings", "before"))
OPTIONS = ("route", "rank", "options")
USER = {"step": "image", "attempt": "1", "epoch": "7"}
#: float32, and a whole number in more bytes than it needs: packing what was unpacked would give other bytes.
ODD_BYTES = [b"\xca" + struct.pack("!f", 1.5), b"\xcf" + bytes(7) + b"\x05", b"\x92\x01\xc4\x01\xff", b"\xc0"]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def take(payload: bytes, user: dict[str, str] | None = None, **more: Any) -> Work:
    return decode_work(payload, request=REQUEST, reply_to=INBOX, user=user or USER, **more)


def sent_on(work: Work) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """What the next step gets."""
    payload, user = encode_work(replace(work, step="rank", inputs={"left": 1}))
    found: dict[str, Any] = msgpack.unpackb(payload)
    return found, user


@pytest.mark.parametrize("place", [*PLACES, OPTIONS], ids=".".join)
@given(key=st.text(max_size=8).map(lambda text: f"new-{text}"), value=values)
def test_an_unknown_key_is_passed_on_wherever_it_is(place: tuple[str, ...], key: str, value: Any) -> None:
    document = msgpack.unpackb(encode_work(WORK)[0])
    there = document
    for name in place:
        there = there[name]
    there[key] = value
    work = take(msgpack.packb(document))
    found, _ = sent_on(work)
    assert {**document, "inputs": {"left": 1}} == found
    assert (work.hop, work.route["rank"].options) == (HOPS["image"], HOPS["rank"].options)


@pytest.mark.parametrize("value", ODD_BYTES, ids=bytes.hex)
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_its_value_is_the_same_to_the_byte(place: tuple[str, ...], value: bytes) -> None:
    payload = with_key(encode_work(WORK)[0], place, value)
    sent, _ = encode_work(replace(take(payload), step="rank", inputs={"left": 1}))
    for name in place:
        sent = values_of(sent)[name]
    assert values_of(sent)["newer"] == value


def with_key(packed: bytes, place: tuple[str, ...], value: bytes) -> bytes:
    found = values_of(packed)
    if place:
        found[place[0]] = with_key(found[place[0]], place[1:], value)
    else:
        found["newer"] = value
    return pack_map(found.items())


def test_unknown_user_properties_are_passed_on_in_order_and_twice_if_they_came_twice() -> None:
    pairs = (*USER.items(), ("tracestate", "a=1"), ("priority", "9"), ("tracestate", "b=2"))
    work = take(encode_work(WORK)[0], dict(pairs), properties=pairs)
    _, user = sent_on(work)
    assert user[-3:] == pairs[-3:]
    assert [name for name, _ in user].count("step") == 1


def test_a_join_passes_on_what_each_of_its_messages_brought() -> None:
    hops = {**HOPS, "rank": Hop("cosine", "nuc", {"left": "image.embedding", "top": "input.top"}, ("label",))}
    joins = Joins(4, "nuc")
    whole = None
    for port, key in (("left", "one"), ("top", "other")):
        half = replace(WORK, step="rank", route=hops, inputs={port: 1})
        document = {**msgpack.unpackb(encode_work(half)[0]), key: key, "both": key}
        user = {"step": "rank", key: "x"}
        whole = joins.add(take(msgpack.packb(document), user), now=0.0)
    assert whole is not None
    payload, user_properties = encode_work(whole)
    found = msgpack.unpackb(payload)
    assert (found["one"], found["other"], found["both"]) == ("one", "other", "other")
    assert user_properties[-2:] == (("one", "x"), ("other", "x"))


def test_what_a_timing_has_more_comes_with_the_answer_too() -> None:
    document = msgpack.unpackb(encode_work(WORK)[0])
    document["timings"]["before"]["joules"] = 3.5
    timings = take(msgpack.packb(document)).timings
    answer = msgpack.unpackb(encode_answer(Answer(REQUEST, "rank", 1, {"label": "a"}, timings))[0])
    assert answer["timings"]["before"]["joules"] == 3.5
    assert answer["outputs"] == {"label": "a"}


@given(key=st.text(min_size=1, max_size=8).map(lambda text: f"new-{text}"), value=values)
def test_answers_errors_and_pieces_are_read_with_unknown_keys(key: str, value: Any) -> None:
    good = Answer(REQUEST, "rank", 1, {"label": "a"}, {"rank": Timing("nuc", 1, 2, 3)})
    document = msgpack.unpackb(encode_answer(good)[0])
    document[key] = document["timings"]["rank"][key] = value
    found = decode_answer(msgpack.packb(document), request=REQUEST, user={"step": "rank"})
    assert (found.outputs, found.timings["rank"].node) == (good.outputs, "nuc")
    error = {"error": {"code": "a-newer-code", "detail": "x", key: value}, key: value}
    assert decode_answer(msgpack.packb(error), request=REQUEST, user={}).error is not None
    payload, user = encode_piece(Piece(REQUEST, "rank", 1, 0, 4, "text"))
    piece = {**msgpack.unpackb(payload), key: value}
    assert decode_piece(msgpack.packb(piece), request=REQUEST, user={**dict(user), key: "x"}).text == "text"


@given(key=st.text(min_size=1, max_size=8).map(lambda text: f"new-{text}"), value=values)
def test_a_piece_of_a_part_is_read_with_an_unknown_key_and_an_unknown_refusal(key: str, value: Any) -> None:
    request = PieceRequest(part="0" * 64, file=1, piece=2)
    piece = msgpack.unpackb(encode_part_piece(request, b"bytes"))
    found = decode_part_piece(msgpack.packb({**piece, key: value, "refused": "a-newer-reason"}))
    assert (found.data, found.refused) == (b"bytes", "a-newer-reason")


@pytest.mark.parametrize("given_type", [None, CONTENT_TYPE, CONTENT_TYPE.upper(), f"{CONTENT_TYPE}; q=1"])
def test_the_content_type_may_be_absent_or_ours(given_type: str | None) -> None:
    assert take(encode_work(WORK)[0], content_type=given_type).task == "porch"


@pytest.mark.parametrize("given_type", ["", "application/json", "application/vnd.s2m3.v2+msgpack"])
def test_another_content_type_is_bad_input_that_names_it(given_type: str) -> None:
    piece, answer = encode_piece(Piece(REQUEST, "rank", 1, 0, 0, "x")), encode_answer(Answer(REQUEST, "rank", 1))
    with pytest.raises(BadInputError, match="content type"):
        take(encode_work(WORK)[0], content_type=given_type)
    with pytest.raises(BadInputError, match="content type"):
        decode_answer(answer[0], request=REQUEST, user=dict(answer[1]), content_type=given_type)
    with pytest.raises(BadInputError, match="content type"):
        decode_piece(piece[0], request=REQUEST, user=dict(piece[1]), content_type=given_type)
