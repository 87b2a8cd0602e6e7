"""Messages of the data plane and of plain requests to the letter: what other releases and other languages read."""

import base64
import json
from dataclasses import replace
from typing import Annotated, Any

import msgpack
import pytest

from s2m3.schemas.dtypes import read_dtype, share_of
from s2m3.schemas.errors import BadInputError, BusyError, TooLargeError
from s2m3.schemas.ids import shown_id
from s2m3.schemas.protocol import Since
from s2m3.schemas.wire.codec import (
    decode_answer,
    decode_piece,
    decode_work,
    encode_answer,
    encode_piece,
    payload_models,
)
from s2m3.schemas.wire.codec import encode_work as packed
from s2m3.schemas.wire.generation import Options, Piece, common_length, read_options
from s2m3.schemas.wire.message_properties import attempt_of, is_piece, is_stop, traceparent_of
from s2m3.schemas.wire.notices import encode_stop
from s2m3.schemas.wire.packing import restore, unpack
from s2m3.schemas.wire.plain import (
    encode_plain_error,
    encode_plain_piece,
    encode_plain_result,
    parse_plain,
    read_inputs,
    transaction_of,
)
from s2m3.schemas.wire.work import Answer, Hop, PassedOn, Timing, Work, following

REQUEST = bytes(range(16))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HOPS = {
    "image": Hop("vit", "pi5", {"picture": "input.image"}, ("embedding",)),
    "rank": Hop("cosine", "nuc", {"left": "image.embedding", "top": "input.top"}, ("label",)),
    "write": Hop("lm", "nuc", {"text": "rank.label"}, ("text",), Options(max_tokens=7, temperature=0.5), stream=True),
}
WORK = Work(REQUEST, "porch", "image", 2, 7, "inbox", {"picture": b"jpeg"}, HOPS, 1234.56789)


def decoded(work: Work = WORK, user: dict[str, str] | None = None, **how: Any) -> Work:
    payload, properties = packed(work)
    return decode_work(
        payload, request=REQUEST, reply_to="inbox", user=dict(properties) if user is None else user, **how
    )


def refusal(decode: Any, payload: bytes, **how: Any) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        decode(payload, request=REQUEST, **{"user": {}, **how})
    return caught.value


# ---- work ----------------------------------------------------------------------------------------------------------


def test_a_work_message_has_these_keys() -> None:
    work = replace(WORK, timings={"image": Timing("pi5", 1.23456, 2.34567, 3)})
    payload, user = packed(work)
    hop = {"module": "vit", "node": "pi5", "inputs": {"picture": "input.image"}, "outputs": ["embedding"]}
    assert msgpack.unpackb(payload) == {
        "task": "porch",
        "inputs": {"picture": b"jpeg"},
        "route": {
            "image": hop,
            "rank": {
                "module": "cosine",
                "node": "nuc",
                "inputs": {"left": "image.embedding", "top": "input.top"},
                "outputs": ["label"],
            },
            "write": {
                "module": "lm",
                "node": "nuc",
                "inputs": {"text": "rank.label"},
                "outputs": ["text"],
                "options": {"max_tokens": 7, "temperature": 0.5},
                "stream": True,
            },
        },
        "ms_left": 1234.568,
        "timings": {"image": {"node": "pi5", "queued_ms": 1.235, "run_ms": 2.346, "batch": 3}},
    }
    assert user == (("step", "image"), ("attempt", "2"), ("epoch", "7"))


def test_options_and_streaming_of_a_step_come_back() -> None:
    assert decoded().route == HOPS


def test_the_trace_of_a_request_comes_back_and_one_that_is_malformed_does_not() -> None:
    work = replace(WORK, traceparent=TRACE)
    assert dict(packed(work)[1])["traceparent"] == TRACE
    assert decoded(work).traceparent == TRACE
    assert decoded().traceparent is None
    for wrong in ("", TRACE[:-1], TRACE + "0", "01" + TRACE[2:], TRACE.upper()):
        assert traceparent_of({"traceparent": wrong}) is None


@pytest.mark.parametrize(("expiry_s", "ms"), [(None, 1234.568), (2.0, 1234.568), (1.0, 1000.0), (0.0, 0.0)])
def test_no_more_of_the_deadline_is_left_than_until_the_message_expires(expiry_s: float | None, ms: float) -> None:
    assert decoded(expiry_s=expiry_s).ms_left == pytest.approx(ms)


def test_without_properties_it_is_the_first_attempt_of_epoch_0() -> None:
    found = decoded(user={"step": "image"})
    assert (found.attempt, found.epoch) == (1, 0)


def test_a_message_without_a_step_is_refused_and_a_long_one_is_shown_cut() -> None:
    assert refusal(decode_work, packed(WORK)[0], reply_to="inbox").detail == "step '' is not in the message's route"
    long = refusal(decode_work, packed(WORK)[0], reply_to="inbox", user={"step": "s" * 99})
    assert long.detail == f"step {'s' * 40!r} is not in the message's route"


def test_an_input_that_the_step_does_not_take_is_told_with_the_step() -> None:
    stray = packed(replace(WORK, inputs={"picture": b"", "z": 1, "other": 2}))
    error = refusal(decode_work, stray[0], reply_to="inbox", user=dict(stray[1]))
    assert (error.detail, error.step) == ("step image takes no input 'other'", "image")


def test_a_route_whose_wiring_is_wrong_is_told_with_the_step() -> None:
    hops = {**HOPS, "rank": replace(HOPS["rank"], inputs={"left": "image." + "x" * 99})}
    payload, user = packed(replace(WORK, route=hops))
    error = refusal(decode_work, payload, reply_to="inbox", user=dict(user))
    assert error.step == "rank"
    assert error.detail == f"route: rank.left: {'image.' + 'x' * 74!r} is not an output that a step is asked for"


def test_a_long_route_is_read_like_a_short_one() -> None:
    hops = {f"s{n}": Hop("m" * 60, "n" * 60, {"x" * 100: "input." + "x" * 100}, ("y" * 100,)) for n in range(40)}
    work = replace(WORK, step="s3", route=hops, inputs={"x" * 100: 1})
    assert len(packed(work)[0]) > 8_192
    assert decoded(work).route == hops


def test_a_message_that_is_no_map_is_refused_as_a_whole() -> None:
    assert refusal(decode_answer, msgpack.packb([1])).detail.startswith("message: ")


def test_a_counter_that_is_no_number_is_shown_cut() -> None:
    error = refusal(decode_work, packed(WORK)[0], reply_to="inbox", user={"step": "image", "attempt": "x" * 99})
    assert error.detail == f"user property attempt={'x' * 40!r} is not a small whole number"
    fifteen = {"attempt": "9" * 15}
    assert attempt_of(fifteen) == 10**15 - 1
    assert attempt_of({"attempt": "9" * 16}) == 1


def test_what_ends_a_work_has_no_payload_and_says_so() -> None:
    assert encode_stop(WORK) == (("step", "image"), ("attempt", "2"), ("stop", "1"))
    assert is_stop({"stop": "1"})
    assert not is_stop({"step": "image"})


def test_what_follows_a_step_takes_these_of_its_outputs() -> None:
    assert following(HOPS, "image") == {"rank": {"left": "embedding"}}
    assert following(HOPS, "rank") == {"write": {"text": "label"}}
    assert following(HOPS, "write") == {}
    assert following(HOPS, "ima") == {}


# ---- answers and pieces --------------------------------------------------------------------------------------------


def test_an_answer_has_outputs_or_an_error_and_its_timings() -> None:
    timing = {"node": "pi5", "queued_ms": 1.0, "run_ms": 2.0, "batch": 1}
    good, user = encode_answer(Answer(REQUEST, "rank", 2, {"label": "cat"}, {"rank": Timing("pi5", 1.0, 2.0, 1)}))
    assert msgpack.unpackb(good) == {"outputs": {"label": "cat"}, "timings": {"rank": timing}}
    assert user == (("step", "rank"), ("attempt", "2"))
    bad, _ = encode_answer(Answer(REQUEST, "rank", 2, error=BusyError("64 wait")))
    assert msgpack.unpackb(bad) == {"error": {"code": "busy", "detail": "64 wait"}, "timings": {}}
    assert decode_answer(good, request=REQUEST, user={}).step == ""
    assert decode_answer(good, request=REQUEST, user={}).attempt == 1


PIECE = Piece(REQUEST, "write", 2, 5, 11, "a cat")


def test_a_piece_comes_back_as_it_was_and_is_told_from_an_answer() -> None:
    payload, user = encode_piece(PIECE)
    assert msgpack.unpackb(payload) == {"text": "a cat", "at": 11}
    assert user == (("step", "write"), ("attempt", "2"), ("seq", "5"))
    assert decode_piece(payload, request=REQUEST, user=dict(user)) == PIECE
    assert is_piece(dict(user))
    assert not is_piece(dict(encode_answer(Answer(REQUEST, "rank", 2))[1]))


def test_a_piece_without_properties_is_the_first_of_the_first_attempt() -> None:
    found = decode_piece(encode_piece(PIECE)[0], request=REQUEST, user={})
    assert (found.step, found.attempt, found.seq) == ("", 1, 0)


@pytest.mark.parametrize(
    ("document", "where"),
    [({"at": 1}, "text"), ({"text": "a"}, "at"), ({"text": "a", "at": -1}, "at"), ([], "message")],
)
def test_a_piece_that_is_none_is_refused_by_name(document: Any, where: str) -> None:
    assert refusal(decode_piece, msgpack.packb(document)).detail.startswith(f"{where}: ")


def test_a_piece_of_no_request_or_with_a_wrong_number_is_refused() -> None:
    payload, user = encode_piece(PIECE)
    with pytest.raises(BadInputError, match="correlation data must be 16 bytes"):
        decode_piece(payload, request=None, user=dict(user))
    for name in ("seq", "attempt"):
        assert name in refusal(decode_piece, payload, user={**dict(user), name: "-1"}).detail


def test_values_nest_16_deep_in_lists_and_in_maps() -> None:
    for wrap in (lambda inner: [inner], lambda inner: {"k": inner}):
        value: Any = 1
        for _ in range(16):
            value = wrap(value)
        assert restore(value) == value
        with pytest.raises(BadInputError, match="deeper than 16"):
            restore(wrap(value))


def test_texts_come_as_texts_and_bytes_as_bytes() -> None:
    assert unpack(msgpack.packb({"a": "text", "b": b"bytes"})) == {"a": "text", "b": b"bytes"}


# ---- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_tokens": 0}, "options.max_tokens: "),
        ({"stop": [""]}, "options.stop: texts of 1 to 100 characters"),
        ({"stop": ["a"] * 9}, "options.stop: at most 8 texts"),
        (
            {"beams": 1},
            (
                "options has an unknown key 'beams': "
                "max_tokens, stop, temperature, seed, timestamps, format, top_k, top_p, min_p"
            ),
        ),
        ({"format": {"a": float("nan")}}, "options.format: a schema in JSON"),
        ({"format": {"a": "x" * 40_000}}, "options.format: a schema of at most 32768 characters"),
        ({"format": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "options.format: a schema of at most 32 levels"),
    ],
)
def test_an_option_that_cannot_be_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read_options(given)
    assert caught.value.detail.startswith(said)


def test_options_given_go_before_the_defaults_and_are_sent_where_they_differ() -> None:
    options = read_options({"stop": "."}, {"stop": ["!"], "max_tokens": 3})
    assert options == Options(stop=(".",), max_tokens=3)
    assert options.as_dict() == {"stop": (".",), "max_tokens": 3}
    assert read_options(None).as_dict() == {}


def test_a_seed_is_filled_in_where_tokens_are_drawn_and_none_was_given() -> None:
    assert Options(temperature=1.0).seeded(5).seed == 5
    assert Options(temperature=1.0, seed=4).seeded(5).seed == 4
    assert Options().seeded(5).seed is None


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [("", "", 0), ("a", "b", 0), ("ab", "ac", 1), ("ab", "abc", 2), ("abc", "ab", 2), ("abd", "abc", 2)],
)
def test_the_common_beginning_of_two_texts(one: str, other: str, length: int) -> None:
    assert common_length(one, other) == length


# ---- plain ---------------------------------------------------------------------------------------------------------


def test_a_plain_piece_has_these_keys() -> None:
    payload = encode_plain_piece(at=3, text="é", seq=2, request=b"\xab" * 16, transaction="t")
    assert json.loads(payload) == {
        "status": "piece",
        "transaction": "t",
        "request": shown_id(b"\xab" * 16),
        "seq": 2,
        "at": 3,
        "text": "é",
        "final": False,
    }
    assert "é".encode() in payload


def result(**changes: Any) -> bytes:
    usual: dict[str, Any] = {"answer": "é", "outputs": {}, "timings": {}, "latency_ms": 1.0, "attempts": 1}
    return encode_plain_result(**{**usual, "model": "m", "request": bytes(16), "transaction": 1, **changes})


def test_the_last_message_of_a_stream_says_so_with_its_number_and_others_do_not() -> None:
    error = BusyError("é")
    streamed = [result(seq=3), encode_plain_error(error, request=bytes(16), transaction=1, seq=3)]
    assert all((json.loads(payload)["seq"], json.loads(payload)["final"]) == (3, True) for payload in streamed)
    others = [result(), encode_plain_error(error, request=bytes(16), transaction=1)]
    assert all(not {"seq", "final"} & json.loads(payload).keys() for payload in others)
    assert all("é".encode() in payload for payload in [*streamed, *others])


def test_what_of_a_request_was_passed_over_is_named_in_its_answer() -> None:
    error = encode_plain_error(BusyError("x"), request=bytes(16), transaction=1, ignored=["a", "b\ud800"])
    assert json.loads(error)["ignored"] == ["a", "b?"]
    assert json.loads(result(ignored=["a"]))["ignored"] == ["a"]
    assert "ignored" not in json.loads(result())


def test_unknown_keys_and_options_are_passed_over_and_named_in_order() -> None:
    found = parse_plain(b'{"z": 1, "inputs": {}, "a": 2, "options": {"beams": 1, "max_tokens": 3}, "stream": true}')
    assert found.ignored == ("a", "options.beams", "z")
    assert (found.options, found.stream) == ({"max_tokens": 3}, True)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"{", "the request is not JSON: "),
        (b"[]", "the request is not a JSON object"),
        (b'{"inputs": 1}', "inputs is not a JSON object"),
        (b'{"transaction": [1.5]}', "transaction is not a number or a text of at most 256"),
        (b'{"deadline_s": 0}', "deadline_s is not a number of seconds above 0 and at most a day"),
        (b'{"deadline_s": 86401}', "deadline_s is not a number of seconds above 0 and at most a day"),
        (b'{"deadline_s": true}', "deadline_s is not a number of seconds above 0 and at most a day"),
        (b'{"options": 1}', "options is not a JSON object"),
        (b'{"stream": 1}', "stream is neither true nor false"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(payload: bytes, said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_plain(payload)
    assert caught.value.detail.startswith(said)


def test_the_bounds_of_a_request_are_within_it() -> None:
    assert parse_plain(b'{"deadline_s": 86400}').deadline_s == 86_400
    longest = "x" * 256
    assert parse_plain(json.dumps({"transaction": longest}).encode()).transaction == longest
    assert transaction_of(json.dumps({"transaction": longest + "x"}).encode()) is None


def test_half_a_character_is_no_transaction_and_its_neighbours_are() -> None:
    found = [transaction_of(json.dumps({"transaction": chr(c)}).encode()) for c in (0xD7FF, 0xD800, 0xDFFF, 0xE000)]
    assert found == ["\ud7ff", None, None, "\ue000"]


def test_a_wrong_picture_in_a_list_is_named_by_its_input() -> None:
    with pytest.raises(BadInputError, match="input 'photos' takes"):
        read_inputs({"photos": "images"}, {"photos": [{"base64": "AA=="}, 7]}, {})
    with pytest.raises(BadInputError, match="input 'photos' is not base64"):
        read_inputs({"photos": "images"}, {"photos": [{"base64": "?"}]}, {})
    with pytest.raises(BadInputError, match="the task has no input 'a'; it takes photos, text"):
        read_inputs({"text": "text", "photos": "images"}, {"b": 1, "a": 1}, {})


# ---- dtypes --------------------------------------------------------------------------------------------------------


def test_a_dtype_has_a_long_and_a_short_name() -> None:
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    assert {name: read_dtype(name) for name in short} == short
    assert [read_dtype(name) for name in ("float32", "int8")] == ["float32", "int8"]
    with pytest.raises(BadInputError, match="the dtype is one of float32, bfloat16, float16, int8, not 'int4'"):
        read_dtype("int4")


def test_weights_take_their_share_of_float32_and_unknown_ones_all_of_it() -> None:
    assert [share_of(dtype) for dtype in ("float32", "bfloat16", "float16", "int8", "unknown")] == [1, 0.5, 0.5, 0.3, 1]


# ---- passing on ----------------------------------------------------------------------------------------------------


def test_of_two_messages_parts_that_are_passed_on_the_newer_counts_and_nothing_is_lost() -> None:
    older = PassedOn({"a": b"1", "b": b"1"}, b"old", (("x", "1"), ("y", "1")))
    newer = PassedOn({"b": b"2"}, b"new", (("y", "1"), ("z", "1")))
    union = older | newer
    assert union == PassedOn({"a": b"1", "b": b"2"}, b"new", (("x", "1"), ("y", "1"), ("z", "1")))
    assert (older | PassedOn()).route == b"old"
    assert (PassedOn() | newer).route == b"new"


def test_a_file_in_json_may_say_what_its_bytes_are() -> None:
    given = {"base64": base64.b64encode(b"\1\0" * 10).decode(), "content_type": "audio/L16; rate=8000; endian=little"}
    sound = read_inputs({"sound": "audio"}, {"sound": given}, {})["sound"]
    assert isinstance(sound, bytes)
    assert sound.startswith(b"RIFF")
    assert sound.endswith(b"\1\0" * 10)
    raw = read_inputs({"sound": "audio"}, {"sound": {"base64": given["base64"]}}, {})["sound"]
    assert raw == b"\1\0" * 10


def test_an_extension_of_msgpack_is_named() -> None:
    with pytest.raises(BadInputError, match="msgpack extension type 5 is not part of this protocol"):
        unpack(msgpack.packb({"a": msgpack.ExtType(5, b"x")}))


def test_the_models_of_the_payloads_are_those_that_read_what_we_send() -> None:
    models = payload_models()
    answer, _ = encode_answer(Answer(REQUEST, "rank", 1, {"label": "a"}, {"rank": Timing("nuc", 1, 2, 3)}))
    piece, _ = encode_piece(Piece(REQUEST, "words", 1, 0, 4, "a text"))
    sent = {"Work": packed(WORK)[0], "Answer": answer, "Piece": piece}
    assert models.keys() == sent.keys()
    for name, payload in sent.items():
        read = models[name].model_validate(msgpack.unpackb(payload))
        assert read.model_fields_set == set(msgpack.unpackb(payload))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ({"base64": "/9j/"}, b"\xff\xd8\xff"),
        ({"base64": "/9j/", "content_type": "image/jpeg"}, b"\xff\xd8\xff"),
        ({"base64": "/9j/", "name": "x"}, {"base64": "/9j/", "name": "x"}),
        ({"content_type": "image/jpeg"}, {"content_type": "image/jpeg"}),
        (["base64"], ["base64"]),
    ],
)
def test_an_input_of_an_unknown_kind_is_a_file_only_in_the_form_of_one(value: Any, read: Any) -> None:
    assert read_inputs({"x": "unknown"}, {"x": value}, {}) == {"x": read}


def test_an_error_without_figures_has_none() -> None:
    error = TooLargeError("too much")
    assert (error.size, error.limit) == (0, 0)


class _Later(Options):
    """Options of a release that has one more, with a default that is not None."""

    penalty: Annotated[float, Since(1)] = 1.5


def test_an_option_that_a_reader_does_not_know_is_sent_to_it_as_if_nobody_had_set_it() -> None:
    options = _Later(max_tokens=4, penalty=2.5)
    assert options.for_reader(1) is options
    older = options.for_reader(0)
    assert (older.max_tokens, older.penalty) == (4, 1.5)
    assert Options(max_tokens=4).for_reader(0) == Options(max_tokens=4)
