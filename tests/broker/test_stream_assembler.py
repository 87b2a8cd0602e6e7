"""A streamed text put together: whatever is lost, doubled, reordered or begun again, the end is the whole text."""

from hypothesis import given
from hypothesis import strategies as st

from s2m3.broker.requests.stream_assembler import StreamAssembler, TextDelta
from s2m3.schemas.wire.generation import Piece

ID = b"1" * 16
TEXTS = st.text(st.sampled_from("ab c"), max_size=12)


def pieces_of(text: str, sizes: list[int], attempt: int) -> list[Piece]:
    """A text cut into pieces of the given sizes, in order."""
    found: list[Piece] = []
    at = 0
    for size in sizes:
        if at >= len(text):
            break
        found.append(Piece(ID, "words", attempt, len(found), at, text[at : at + size]))
        at += size
    return found


def applied(shown: list[TextDelta | None]) -> str:
    text = ""
    for part in shown:
        text = part.after(text) if part is not None else text
    return text


def sizes() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 4), max_size=12)


@given(first=TEXTS, second=TEXTS, cuts=st.tuples(sizes(), sizes()), whole=TEXTS, data=st.data())
def test_whatever_happens_to_the_pieces_the_caller_ends_with_the_answer(
    first: str, second: str, cuts: tuple[list[int], list[int]], whole: str, data: st.DataObject
) -> None:
    sent = pieces_of(first, cuts[0], 1) + pieces_of(second, cuts[1], 2)
    came = data.draw(st.lists(st.sampled_from(sent), max_size=30)) if sent else []
    streamed = StreamAssembler()
    shown = [streamed.add(piece) for piece in came]
    assert applied(shown) == streamed.text
    assert applied([*shown, streamed.end(whole)]) == whole


@given(text=TEXTS, cut=sizes(), data=st.data())
def test_what_is_shown_of_one_attempt_is_always_the_beginning_of_its_text(
    text: str, cut: list[int], data: st.DataObject
) -> None:
    sent = pieces_of(text, cut, 1)
    came = data.draw(st.lists(st.sampled_from(sent), max_size=30)) if sent else []
    streamed = StreamAssembler()
    parts = [streamed.add(piece) for piece in came]
    assert text.startswith(streamed.text)
    assert all(part.text for part in parts if part is not None)
    there = {piece.seq for piece in came}
    unbroken = next(n for n in range(len(sent) + 1) if n not in there)
    assert streamed.text == "".join(piece.text for piece in sent[:unbroken])


@given(text=TEXTS, cut=sizes(), again=sizes(), kept=st.integers(0, 12))
def test_a_second_attempt_that_writes_the_same_takes_nothing_back(
    text: str, cut: list[int], again: list[int], kept: int
) -> None:
    streamed = StreamAssembler()
    text_so_far = ""
    for piece in [*pieces_of(text, cut, 1)[:kept], *pieces_of(text, again, 2)]:
        part = streamed.add(piece)
        if part is not None:
            assert part.at == len(text_so_far)
            text_so_far = part.after(text_so_far)


def test_pieces_of_an_older_attempt_are_dropped() -> None:
    streamed = StreamAssembler()
    assert streamed.add(Piece(ID, "words", 2, 0, 0, "new")) == TextDelta(0, "new")
    assert streamed.add(Piece(ID, "words", 1, 0, 0, "old")) is None
    assert streamed.text == "new"


def test_an_attempt_that_writes_something_else_replaces_the_text_from_where_they_differ() -> None:
    streamed = StreamAssembler()
    streamed.add(Piece(ID, "words", 1, 0, 0, "a cat sits"))
    assert streamed.add(Piece(ID, "words", 2, 0, 0, "a cow")) == TextDelta(3, "ow")
    assert streamed.text == "a cow"


def test_what_comes_before_a_missing_piece_waits_for_it_and_not_without_bound() -> None:
    streamed = StreamAssembler()
    for seq in range(1, 100_000):
        assert streamed.add(Piece(ID, "words", 1, seq, seq, "x")) is None
    shown = streamed.add(Piece(ID, "words", 1, 0, 0, "x"))
    assert shown is not None
    assert len(shown.text) == 65
    assert streamed.end("y") == TextDelta(0, "y")


def test_an_end_that_was_shown_already_shows_nothing_more() -> None:
    streamed = StreamAssembler()
    streamed.add(Piece(ID, "words", 1, 0, 0, "all"))
    assert streamed.end("all") is None
    assert streamed.end("all of it") == TextDelta(3, " of it")
