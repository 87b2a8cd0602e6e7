"""Inputs that come in pieces: in order, repeated, with gaps, too many; what is missing is said, never guessed."""

from dataclasses import replace

import pytest

from s2m3.agents.serving.input_pieces import InputPieces
from s2m3.schemas.errors import BadInputError, NotReadyError
from s2m3.schemas.wire.codec import decode_work, encode_work
from s2m3.schemas.wire.input_pieces import (
    LONGEST_PIECE,
    GrowingInput,
    InputPiece,
    decode_input_piece,
    encode_input_piece,
)
from s2m3.schemas.wire.work import Hop, Work

ONE, OTHER = b"1" * 16, b"2" * 16
WORK = Work(
    request=b"r" * 16,
    task="t",
    step="s",
    attempt=1,
    epoch=1,
    reply_to="s2m3/v1/client/x/in",
    inputs={},
    route={"s": Hop("m", "n", {"x": "input.x"}, ("y",))},
    ms_left=1_000.0,
    growing={"x": GrowingInput(ONE, 6)},
)


def pieces(*given: InputPiece, most: int = 100) -> InputPieces:
    made = InputPieces(most, "n")
    for now, piece in enumerate(given):
        made.put(piece, now)
    return made


def test_work_gets_the_bytes_that_it_is_about_and_not_those_behind_them() -> None:
    made = pieces(InputPiece(ONE, 0, b"abcd"), InputPiece(ONE, 4, b"efgh"))
    work = made.whole(WORK, 2)
    assert (work.inputs, work.growing) == ({"x": b"abcdef"}, {})


def test_pieces_that_are_repeated_change_nothing() -> None:
    made = pieces(InputPiece(ONE, 0, b"abcd"), InputPiece(ONE, 0, b"abcd"), InputPiece(ONE, 2, b"cdef"))
    assert made.whole(WORK, 3).inputs == {"x": b"abcdef"}
    assert made.waiting_bytes() == 6


def test_a_gap_ends_a_stream_until_it_is_repeated_from_its_beginning() -> None:
    made = pieces(InputPiece(ONE, 0, b"ab"), InputPiece(ONE, 4, b"ef"))
    assert (len(made), made.waiting_bytes()) == (0, 0)
    with pytest.raises(NotReadyError, match="missing"):
        made.whole(WORK, 2)
    made.put(InputPiece(ONE, 0, b"abcdef"), 3)
    assert made.whole(WORK, 3).inputs == {"x": b"abcdef"}


def test_work_about_more_than_has_come_is_refused() -> None:
    with pytest.raises(NotReadyError):
        pieces(InputPiece(ONE, 0, b"abcde")).whole(WORK, 1)


def test_the_stream_that_was_used_longest_ago_makes_room() -> None:
    made = pieces(InputPiece(ONE, 0, b"abcdef"), InputPiece(OTHER, 0, b"x"), most=10)
    made.whole(WORK, 2)
    made.put(InputPiece(b"3" * 16, 0, b"1234"), 3)
    assert made.whole(WORK, 4).inputs == {"x": b"abcdef"}
    assert (len(made), made.waiting_bytes()) == (2, 10)
    made.put(InputPiece(b"3" * 16, 4, b"x" * 20), 5)
    assert (len(made), made.waiting_bytes()) == (0, 0)


def test_there_are_at_most_so_many_streams() -> None:
    made = pieces(*(InputPiece(number.to_bytes(16), 0, b"") for number in range(1_000)))
    assert len(made) == 256


def test_a_stream_of_which_nothing_is_heard_is_forgotten() -> None:
    made = pieces(InputPiece(ONE, 0, b"abcdef"))
    made.expire(59)
    assert len(made) == 1
    made.expire(60)
    assert (len(made), made.waiting_bytes()) == (0, 0)


def test_pieces_and_what_refers_to_them_come_back_from_the_wire() -> None:
    piece = InputPiece(ONE, 7, b"abc")
    assert decode_input_piece(piece.data, stream=ONE, user=dict(encode_input_piece(piece))) == piece
    payload, user = encode_work(WORK)
    read = decode_work(payload, request=WORK.request, reply_to=WORK.reply_to, user=dict(user))
    assert read.growing == WORK.growing
    assert (read.inputs, read.passed_on) == ({}, None)


@pytest.mark.parametrize(
    ("payload", "stream", "at"),
    [(b"", b"short", "0"), (b"", None, "0"), (b"", ONE, "-1"), (b"", ONE, "x"), (bytes(LONGEST_PIECE + 1), ONE, "0")],
)
def test_pieces_that_are_none_are_refused(payload: bytes, stream: bytes | None, at: str) -> None:
    with pytest.raises(BadInputError):
        decode_input_piece(payload, stream=stream, user={"input_at": at})


@pytest.mark.parametrize("growing", [{}, {"z": GrowingInput(ONE, 1)}, {"x": GrowingInput(b"short", 1)}])
def test_work_that_refers_to_nothing_is_refused(growing: dict[str, GrowingInput]) -> None:
    payload, user = encode_work(replace(WORK, growing=growing))
    with pytest.raises(BadInputError):
        decode_work(payload, request=WORK.request, reply_to=WORK.reply_to, user=dict(user))


@pytest.mark.parametrize(
    ("sizes", "left"), [((4, 6), 2), ((4, 7), 1), ((11,), 0)], ids=["exactly", "more", "one alone"]
)
def test_all_streams_together_have_a_bound(sizes: tuple[int, ...], left: int) -> None:
    made = pieces(*(InputPiece(bytes([n]) * 16, 0, bytes(size)) for n, size in enumerate(sizes)), most=10)
    assert len(made) == left
    assert made.waiting_bytes() == sum(sizes[len(sizes) - left :])


def test_a_piece_that_overlaps_what_is_there_adds_what_is_new() -> None:
    made = pieces(InputPiece(ONE, 0, b"abcd"), InputPiece(ONE, 3, b"def"), InputPiece(ONE, 6, b"g"))
    assert made.waiting_bytes() == 7
    assert made.whole(replace(WORK, growing={"x": GrowingInput(ONE, 7)}), 3).inputs == {"x": b"abcdefg"}


def test_a_piece_behind_a_gap_of_a_stream_that_is_not_known_begins_none() -> None:
    assert len(pieces(InputPiece(ONE, 1, b"b"))) == 0


def test_a_stream_is_kept_for_a_minute_after_its_last_piece_and_after_its_last_work() -> None:
    made = InputPieces(100, "n")
    made.put(InputPiece(ONE, 0, b"abc"), 0.0)
    made.put(InputPiece(OTHER, 0, b"abcdef"), 0.0)
    made.put(InputPiece(ONE, 3, b"def"), 30.0)
    made.expire(89.9)
    assert (len(made), made.waiting_bytes()) == (1, 6)
    assert made.whole(WORK, 89.0).inputs == {"x": b"abcdef"}
    made.expire(148.9)
    assert len(made) == 1
    made.expire(149.0)
    assert len(made) == 0


def test_a_piece_that_is_repeated_keeps_its_stream_too() -> None:
    made = pieces(InputPiece(ONE, 0, b"abc"))
    made.put(InputPiece(ONE, 0, b"abc"), 50.0)
    made.expire(100.0)
    assert (len(made), made.waiting_bytes()) == (1, 3)


def test_work_with_all_its_bytes_is_left_as_it_is() -> None:
    whole = replace(WORK, inputs={"x": b"abc"}, growing={})
    assert pieces().whole(whole, 0.0) is whole


def test_inputs_that_came_with_the_work_stay_beside_those_of_pieces() -> None:
    work = replace(WORK, inputs={"y": "a"}, growing={"x": GrowingInput(ONE, 2), "z": GrowingInput(OTHER, 1)})
    made = pieces(InputPiece(ONE, 0, b"abc"), InputPiece(OTHER, 0, b"z"))
    assert made.whole(work, 1).inputs == {"y": "a", "x": b"ab", "z": b"z"}
    assert work.inputs == {"y": "a"}


def test_the_error_of_missing_pieces_names_step_and_node_and_is_retried() -> None:
    with pytest.raises(NotReadyError) as missing:
        pieces().whole(WORK, 0.0)
    error = missing.value
    assert (error.step, error.node, error.detail) == ("s", "n", "pieces of the input are missing here")


def test_a_stream_that_is_dropped_leaves_the_others_and_dropping_it_again_changes_nothing() -> None:
    made = pieces(InputPiece(ONE, 0, b"abc"), InputPiece(OTHER, 0, b"de"))
    for _ in range(2):
        made.drop(ONE)
        assert (len(made), made.waiting_bytes()) == (1, 2)
