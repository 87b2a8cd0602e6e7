"""A text in pieces to a plain caller: each piece replaces what is behind a place; unsent text goes with the next."""

import json
from typing import Any

from s2m3.agents.gateway.plain_stream import PlainStream
from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.schemas.ids import shown_id

REQUEST = bytes(range(16))


class Caller:
    """Takes pieces while it has room."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, Any]] = []
        self.has_room = True

    def take(self, payload: bytes) -> bool:
        if self.has_room:
            self.pieces.append(json.loads(payload))
        return self.has_room

    @property
    def said(self) -> list[tuple[int, int, str]]:
        return [(piece["seq"], piece["at"], piece["text"]) for piece in self.pieces]


def test_each_piece_has_its_number_and_what_is_new() -> None:
    caller = Caller()
    stream = PlainStream(REQUEST, "mine", caller.take)
    stream.take(TextDelta(0, "a cat"))
    stream.take(TextDelta(5, " on a"))
    stream.take(TextDelta(10, " table"))
    assert caller.said == [(0, 0, "a cat"), (1, 5, " on a"), (2, 10, " table")]
    assert stream.pieces_sent == 3
    assert {(piece["request"], piece["transaction"]) for piece in caller.pieces} == {(shown_id(REQUEST), "mine")}


def test_what_could_not_be_sent_goes_with_the_next_piece() -> None:
    caller = Caller()
    stream = PlainStream(REQUEST, None, caller.take)
    stream.take(TextDelta(0, "a"))
    caller.has_room = False
    stream.take(TextDelta(1, "b"))
    stream.take(TextDelta(2, "c"))
    assert stream.pieces_sent == 1
    caller.has_room = True
    stream.take(TextDelta(3, "d"))
    assert caller.said == [(0, 0, "a"), (1, 1, "bcd")]


def test_a_change_of_what_was_sent_replaces_it_from_there() -> None:
    caller = Caller()
    stream = PlainStream(REQUEST, None, caller.take)
    stream.take(TextDelta(0, "a cat"))
    stream.take(TextDelta(2, "dog"))
    stream.take(TextDelta(5, "s"))
    assert caller.said == [(0, 0, "a cat"), (1, 2, "dog"), (2, 5, "s")]


def test_a_change_that_could_not_be_sent_is_sent_with_what_follows() -> None:
    caller = Caller()
    stream = PlainStream(REQUEST, None, caller.take)
    stream.take(TextDelta(0, "a cat"))
    caller.has_room = False
    stream.take(TextDelta(2, "dog"))
    caller.has_room = True
    stream.take(TextDelta(5, "s"))
    assert caller.said == [(0, 0, "a cat"), (1, 2, "dogs")]
