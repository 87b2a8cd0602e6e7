"""A continuous batcher step by step, without a thread: who joins, who leaves, what is told and what is counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from s2m3.agents.serving import continuous_batching
from s2m3.agents.serving.continuous_batching import ContinuousBatcher, write_all
from s2m3.agents.serving.items import Item
from s2m3.agents.zoo.noop import NoopWriter
from s2m3.schemas.errors import BadInputError, ModuleFailedError, S2M3Error
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Hop, Timing, Work


class Writer(NoopWriter):
    """A writer whose every step takes a second of the test's clock, and that keeps no row that was dropped."""

    def __init__(self, clock: "Clock", cache_bytes: int) -> None:
        super().__init__(0.0, cache_bytes / 1e6)
        self._clock = clock
        self.rows: list[Any] = []
        self.together: list[int] = []
        self.broken: Exception | None = None

    def begin(self, prepared: list[str], options: Options) -> Any:
        if "broken" in prepared:
            raise ModuleFailedError("cannot begin this")
        row = super().begin(prepared, options)
        self.rows.append(row)
        return row

    def advance(self, rows: Sequence[Any]) -> None:
        self._clock.now += 1.0
        self.together.append(len(rows))
        if self.broken is not None:
            raise self.broken
        super().advance(rows)

    def drop(self, rows: Sequence[Any]) -> None:
        self.rows = [row for row in self.rows if row not in rows]


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Bench:
    """A batcher and what it called back; each thing in the order it came."""

    def __init__(self, clock: Clock, cache_bytes: int) -> None:
        self.clock = clock
        self.writer = Writer(clock, cache_bytes)
        self.batcher = ContinuousBatcher("here", self.writer, self)
        self.done: dict[str, tuple[str, Timing]] = {}
        self.errors: dict[str, S2M3Error] = {}
        self.finished: dict[str, str] = {}
        self.further: dict[str, Mapping[str, Value]] = {}
        self.pieces: list[tuple[int, int, int, str]] = []
        self.has_room = True

    # what the runner does for it

    def call_module(self, _work: Work, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except S2M3Error as error:
            return error

    def finish(self, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        further = {port: value for port, value in outputs.items() if port not in {"text", "finished"}}
        if further:
            self.further[name(item.work)] = further
        self.finished[name(item.work)] = str(outputs["finished"])
        self.done[name(item.work)] = (str(outputs["text"]), timing)

    def fail(self, item: Item, error: S2M3Error) -> None:
        self.errors[name(item.work)] = error

    def send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        if self.has_room:
            self.pieces.append((work.attempt, seq, at, text))
        return self.has_room

    # what the tests do

    def item(self, text: str, *, ends_in: float = 1_000.0, stream: bool = False, **options: Any) -> Item:
        hop = Hop("writer", "here", {"text": "input.text"}, ("text",), Options(**options), stream=stream)
        request = text.encode().ljust(16)[:16]
        work = Work(request, "task", "step", 1, 1, "inbox", {"text": text}, {"step": hop}, ends_in * 1000)
        return Item(work, self.clock.now, self.clock.now + ends_in)

    def step(self, *new: Item, times: int = 1) -> None:
        for n in range(times):
            self.batcher.step(new if n == 0 else ())

    def text(self, request: str) -> str:
        return self.done[request][0]


def name(work: Work) -> str:
    return work.request.decode().strip()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    clock = Clock()
    monkeypatch.setattr(continuous_batching, "time", clock)
    return lambda cache_bytes=1_000: Bench(clock, cache_bytes)


def test_each_step_writes_one_token_of_each_and_a_text_is_answered_when_its_end_is_said(
    made: Callable[..., Bench],
) -> None:
    bench = made()
    bench.step(bench.item("a b"), bench.item("x y z"))
    assert (bench.done, bench.batcher.free_slots) == ({}, 6)
    bench.step(times=2)
    assert bench.text("a b") == "a b"
    assert "x y z" not in bench.done
    assert [name(item.work) for item in bench.batcher.items] == ["x y z"]
    bench.step()
    assert bench.text("x y z") == "x y z"
    assert bench.writer.together == [2, 2, 1]
    assert (bench.writer.rows, bench.batcher.items, bench.batcher.free_slots) == ([], [], 8)


def test_a_request_that_joins_writes_its_first_word_in_the_step_it_came(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b c", stream=True))
    bench.step(bench.item("x y z", stream=True))
    assert bench.pieces == [(1, 0, 0, "a"), (1, 1, 1, " b"), (1, 0, 0, "x")]


def test_a_step_with_nothing_to_write_asks_nothing_of_the_module(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step()
    assert bench.writer.together == []


def test_as_many_tokens_are_written_as_allowed(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("one two three", max_tokens=1), bench.item("a b c", max_tokens=2))
    assert bench.text("one two three") == "one"
    bench.step()
    assert bench.text("a b c") == "a b"


def test_a_stop_text_ends_it_before_the_text(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("one two three", stop=("two",)), times=2)
    assert bench.text("one two three") == "one"


def test_more_tokens_than_can_follow_are_bad_input_and_as_many_as_can_are_not(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("one two", max_tokens=21), bench.item("x y", max_tokens=20))
    assert bench.errors["one two"].detail == "options.max_tokens: 21 are too many: at most 20 fit here"
    assert [name(item.work) for item in bench.batcher.items] == ["x y"]


def test_what_can_never_fit_in_the_cache_is_bad_input_with_the_figures(made: Callable[..., Bench]) -> None:
    bench = made(4)
    bench.step(bench.item("a b", max_tokens=2), bench.item("x y z", max_tokens=2), bench.item("p q r s"))
    assert [name(item.work) for item in bench.batcher.items] == ["a b"]
    assert bench.errors["x y z"].code == bench.errors["p q r s"].code == "bad_input"
    assert bench.errors["x y z"].detail == ("2 tokens after this input need 0.0 MB of keys and values; 0.0 are allowed")


def test_a_text_whose_length_the_request_leaves_open_becomes_as_long_as_the_cache_allows(
    made: Callable[..., Bench],
) -> None:
    bench = made(5)
    bench.writer.usual_tokens = 7
    bench.step(bench.item("a b c"), times=2)
    assert (bench.text("a b c"), bench.finished["a b c"]) == ("a b", "length")


def test_an_answer_says_whether_the_text_ended_by_itself_or_at_its_limit(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b"), bench.item("x y z", max_tokens=2), bench.item("p q r", stop=("q",)), times=3)
    assert bench.finished == {"a b": "stop", "x y z": "length", "p q r": "stop"}


def test_an_input_after_which_no_token_can_follow_is_bad_input(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.writer.most_tokens = lambda prepared: 0  # type: ignore[method-assign]  # noqa: ARG005
    bench.step(bench.item("a b"))
    assert bench.errors["a b"].code == "bad_input"
    bench.writer.most_tokens = lambda prepared: 1  # type: ignore[method-assign]  # noqa: ARG005
    bench.step(bench.item("x y"))
    assert bench.text("x y") == "x"


def test_a_format_is_bad_input_but_for_a_module_whose_texts_follow_it(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b", format="json"), bench.item("x y"), times=3)
    assert bench.errors["a b"].detail == "options.format: this model's texts follow no format"
    assert bench.text("x y") == "x y"
    vars(bench.writer)["follows_formats"] = True
    bench.step(bench.item("p q", format="json"), times=3)
    assert bench.text("p q") == "p q"


def test_what_was_prepared_already_is_not_prepared_again(made: Callable[..., Bench]) -> None:
    bench = made()
    ahead = replace(bench.item("a b"), prepared=["p", "q"])
    bench.step(ahead, times=3)
    assert bench.text("a b") == "p q"


def test_an_answer_has_the_further_outputs_of_its_text(made: Callable[..., Bench]) -> None:
    bench = made()
    begin = bench.writer.begin

    def heard(prepared: list[str], options: Options) -> Any:
        row = begin(prepared, options)
        return type("Heard", (type(row),), {"outputs": {"language": "de"}})(row.words, row.draw, row.tokens)

    bench.writer.begin = heard  # type: ignore[method-assign]
    bench.step(bench.item("a b"), times=3)
    assert bench.further == {"a b": {"language": "de"}}


def test_an_input_that_cannot_be_read_fails_alone(made: Callable[..., Bench]) -> None:
    bench = made()
    bad = bench.item("bad")
    bad.work = replace(bad.work, inputs={"text": 7})
    bench.step(bad, bench.item("a b"), times=3)
    assert isinstance(bench.errors["bad"], BadInputError)
    assert bench.text("a b") == "a b"


def test_what_does_not_fit_beside_the_others_waits_and_so_do_all_behind_it(made: Callable[..., Bench]) -> None:
    bench = made(20)  # a text takes its words and as many tokens; in one batch all are as long as the longest
    bench.step(bench.item("a b c d", max_tokens=4))  # 8
    bench.step(bench.item("1 2 3 4 5 6", max_tokens=6), bench.item("x", max_tokens=1))  # 12 and 2
    assert [name(item.work) for item in bench.batcher.items] == ["a b c d", "1 2 3 4 5 6", "x"]
    assert bench.batcher.free_slots == 5
    assert len(bench.writer.rows) == 1
    bench.step(times=2)
    assert bench.text("a b c d") == "a b c d"
    assert len(bench.writer.rows) == 0
    bench.step()
    assert len(bench.writer.rows) == 1
    bench.step(times=6)
    assert (bench.text("1 2 3 4 5 6"), bench.text("x")) == ("1 2 3 4 5 6", "x")
    assert max(bench.writer.together) == 1


def test_two_that_fill_the_cache_exactly_are_written_together(made: Callable[..., Bench]) -> None:
    bench = made(16)
    bench.step(bench.item("a b c d", max_tokens=4), bench.item("w x y z", max_tokens=4), times=2)
    assert bench.writer.together == [2]


def test_one_that_cannot_begin_fails_and_the_next_begins(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("broken"), bench.item("a b"), times=3)
    assert bench.errors["broken"].detail == "cannot begin this"
    assert bench.text("a b") == "a b"


def test_a_step_that_fails_fails_all_that_took_it_and_forgets_their_rows(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b"), bench.item("x y"))
    bench.writer.broken = ModuleFailedError("a bug")
    bench.step(bench.item("new one"))
    assert {request: error.detail for request, error in bench.errors.items()} == {"a b": "a bug", "x y": "a bug"}
    assert [name(item.work) for item in bench.batcher.items] == ["new one"]
    assert len(bench.writer.rows) == 1
    bench.writer.broken = None
    bench.step(times=3)
    assert bench.text("new one") == "new one"


def test_a_text_whose_deadline_passed_stops_between_two_tokens_and_says_how_far_it_was(
    made: Callable[..., Bench],
) -> None:
    bench = made()
    bench.step(bench.item("a b c d e", ends_in=2.0), bench.item("u v w x y"))
    bench.step()
    assert bench.errors == {}
    bench.step(times=2)
    error = bench.errors["a b c d e"]
    assert (error.code, error.detail) == ("timeout", "the deadline passed after 3 tokens")
    assert len(bench.writer.rows) == 1
    bench.step(times=3)
    assert bench.text("u v w x y") == "u v w x y"


def test_one_whose_deadline_passed_while_it_waited_for_the_cache_says_that(made: Callable[..., Bench]) -> None:
    bench = made(10)
    bench.step(bench.item("a b c d", max_tokens=4))
    bench.step(bench.item("x y", ends_in=1.0, max_tokens=2), bench.item("v w", max_tokens=2))
    assert bench.errors == {}
    bench.step()
    assert bench.errors["x y"].detail == "the deadline passed while it waited for room in the cache"
    assert [name(item.work) for item in bench.batcher.items] == ["a b c d", "v w"]


def test_what_was_dropped_stops_and_is_not_answered_whether_it_is_written_or_waits(made: Callable[..., Bench]) -> None:
    bench = made(10)
    written, waiting = bench.item("a b c d", max_tokens=4), bench.item("x y", max_tokens=2)
    bench.step(written, waiting)
    written.dropped = waiting.dropped = True
    bench.step(times=3)
    assert (bench.errors, bench.done, bench.batcher.items, bench.writer.rows) == ({}, {}, [], [])


# ---- what the requester sees ---------------------------------------------------------------------------------------


def test_pieces_are_told_only_where_they_are_wanted(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b"), times=3)
    assert bench.pieces == []


def test_a_piece_that_finds_no_room_goes_with_the_next(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b c", stream=True))
    bench.has_room = False
    bench.step()
    bench.has_room = True
    bench.step(times=2)
    assert bench.pieces == [(1, 0, 0, "a"), (1, 1, 1, " b c")]


def test_a_step_that_says_nothing_new_sends_no_piece(made: Callable[..., Bench]) -> None:
    bench = made()
    bench.step(bench.item("a b", stream=True), times=3)  # the last one says only that it has ended
    assert bench.pieces == [(1, 0, 0, "a"), (1, 1, 1, " b")]


def test_an_attempt_that_takes_the_place_of_an_earlier_one_is_told_from_the_beginning(
    made: Callable[..., Bench],
) -> None:
    bench = made()
    item = bench.item("a b c", stream=True)
    bench.step(item)
    item.work = replace(item.work, attempt=2)
    bench.step(times=2)
    assert bench.pieces == [(1, 0, 0, "a"), (2, 0, 0, "a b"), (2, 1, 3, " c")]


# ---- what it took --------------------------------------------------------------------------------------------------


def test_the_time_of_a_step_is_shared_by_those_that_took_it(made: Callable[..., Bench]) -> None:
    bench = made()
    item = bench.item("a b")
    bench.clock.now += 0.5  # it waited
    bench.step(item)
    bench.step(bench.item("x y z"))
    bench.step(times=1)
    timing = bench.done["a b"][1]
    assert (timing.node, timing.batch) == ("here", 2)
    assert timing.queued_ms == pytest.approx(500.0)
    assert timing.run_ms == pytest.approx(2_000.0)
    assert bench.batcher.last_ms == pytest.approx(1_000.0)  # each of the two steps of a second was taken with another
    bench.step(times=2)
    assert bench.done["x y z"][1].batch == 2
    assert bench.batcher.last_ms == pytest.approx(500.0 + 500.0 + 1_000.0 + 1_000.0)


# ---- all at once ---------------------------------------------------------------------------------------------------


def test_texts_written_all_at_once_are_those_written_one_by_one_and_no_row_is_kept(made: Callable[..., Bench]) -> None:
    writer = made().writer
    batch = [text.split() for text in ("a b c", "x", "one two three four")]
    texts = ["a b c", "x", "one two three four"]
    assert write_all(writer, batch) == [{"text": text, "finished": "stop"} for text in texts]
    assert writer.together == [3, 2, 2, 1]
    assert writer.rows == []
    assert write_all(writer, []) == []


def test_texts_written_all_at_once_end_at_the_usual_number_of_tokens_or_at_what_fits(
    made: Callable[..., Bench],
) -> None:
    writer = made().writer
    writer.usual_tokens = 2
    stop, length = {"finished": "stop"}, {"finished": "length"}
    assert write_all(writer, [["a", "b", "c"], ["x"]]) == [{"text": "a b", **length}, {"text": "x", **stop}]
    writer.usual_tokens = 10
    writer.most_tokens = lambda prepared: 1 if len(prepared) > 2 else 10  # type: ignore[method-assign]
    assert write_all(writer, [["a", "b", "c"], ["x", "y"]]) == [{"text": "a", **length}, {"text": "x y", **stop}]
    assert writer.rows == []
