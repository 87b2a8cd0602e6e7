"""Messages without payload, which their user properties tell apart; and which of them is which."""

import json

from s2m3.schemas.wire.codec import attempt_of, is_piece, is_stop, is_working
from s2m3.schemas.wire.input_pieces import Growing
from s2m3.schemas.wire.notices import encode_stop, encode_working
from s2m3.schemas.wire.plain import encode_plain_piece, encode_plain_value
from s2m3.schemas.wire.plain_topics import raw_levels
from s2m3.schemas.wire.values import boxes_in
from s2m3.schemas.wire.work import Hop, Work

WORK = Work(
    request=b"r" * 16,
    task="t",
    step="see",
    attempt=3,
    epoch=1,
    reply_to="home/client/c/in",
    inputs={},
    route={"see": Hop("m", "a", {}, ("y",))},
    ms_left=1_000.0,
)
BOX = {"label": "cat", "score": 0.5, "box": [0, 0, 1, 1]}


def test_a_stop_names_the_work_it_stops_and_is_no_other_message() -> None:
    user = dict(encode_stop(WORK))
    assert user == {"step": "see", "attempt": "3", "stop": "1"}
    assert (is_stop(user), is_working(user), is_piece(user)) == (True, False, False)


def test_a_sign_of_life_names_the_work_that_is_under_way_and_is_no_other_message() -> None:
    user = dict(encode_working(WORK))
    assert user == {"step": "see", "attempt": "3", "working": "1"}
    assert (is_stop(user), is_working(user), is_piece(user)) == (False, True, False)
    assert attempt_of(user) == 3


def test_the_levels_of_a_topic_for_raw_bytes() -> None:
    assert raw_levels("home/s2m3", "home/s2m3/request/porch") is None
    assert raw_levels("home/s2m3", "home/s2m3/request/porch/image") == ("image", "")
    assert raw_levels("home/s2m3", "home/s2m3/request/porch/image/7") == ("image", "7")
    assert raw_levels("request", "request/request/porch/image/7/8") == ("image", "7/8")


def test_a_value_alone_is_what_it_is() -> None:
    assert encode_plain_value("Grüße") == "Grüße".encode()
    assert encode_plain_value(b"\xff\xd8") == b"\xff\xd8"
    assert encode_plain_value(["ü", 1]) == '["ü", 1]'.encode()


def test_the_boxes_among_outputs_are_those_that_are_not_empty() -> None:
    assert boxes_in({"text": "a", "empty": [], "found": [BOX]}) == [BOX]
    assert boxes_in({"empty": []}) == []
    assert boxes_in({"text": "a"}) is None
    assert boxes_in({}) is None


def test_bytes_that_grow_know_their_stream() -> None:
    grown = Growing.of(b"s", bytearray(b"abc"))
    assert (grown, grown.stream) == (b"abc", b"s")


def test_a_piece_of_a_text_is_readable_as_it_is() -> None:
    piece = encode_plain_piece(at=3, text="Grüße", seq=2, request=b"r" * 16, transaction=None)
    assert '"text": "Grüße"'.encode() in piece
    assert json.loads(piece)["final"] is False
