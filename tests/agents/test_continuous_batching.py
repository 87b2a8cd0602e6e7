"""Texts written by the runner: requests join between tokens, wait for the cache, are told, stopped, replaced."""

import threading
import time
from collections.abc import Iterator, Sequence
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from s2m3.agents.serving import continuous_batching, runner
from s2m3.agents.serving.runner import Runner
from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.restart_policy import CrashHistory
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.agents.zoo.noop import NoopWriter
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.work import Hop, Timing, Work
from tests.conftest import WAIT_S


class Gated(NoopWriter):
    """Writes a word for each that the test lets through; the first of each text comes at once."""

    def __init__(self, cache_bytes: int) -> None:
        super().__init__(0.0, cache_bytes / 1e6)
        self.gate = threading.Semaphore(0)
        self.together: list[int] = []
        self.broken = False

    def advance(self, rows: Any) -> None:
        assert self.gate.acquire(timeout=WAIT_S)
        if self.broken:
            raise ZeroDivisionError("a bug")
        self.together.append(len(rows))
        super().advance(rows)


class Desk:
    """A runner with one writer, and what came of the work given to it."""

    def __init__(self, cache_bytes: int = 1000, watchdog: Watchdog | None = None) -> None:
        self.writer = Gated(cache_bytes)
        self.done: Queue[tuple[str, Timing]] = Queue()
        self.failed: Queue[Any] = Queue()
        self.told: Queue[tuple[int, int, int, str]] = Queue()
        self.runner = Runner(
            "here", 4, self._done, lambda _, error: self.failed.put(error), self._send_piece, watchdog=watchdog
        )
        self.runner.add("writer", self.writer)
        self.runner.start()

    def _done(self, _work: Work, outputs: Any, timing: Timing, _left: float) -> None:
        self.done.put((outputs["text"], timing))

    def _send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        self.told.put((work.attempt, seq, at, text))
        return True

    def submit(self, text: str, *, attempt: int = 1, ms_left: float = 60_000.0, **options: Any) -> None:
        hop = Hop("writer", "here", {"text": "input.text"}, ("text",), Options(**options), stream=True)
        request = text.encode().ljust(16)[:16]
        work = Work(request, "task", "step", attempt, 1, "inbox", {"text": text}, {"step": hop}, ms_left)
        self.runner.submit(work, time.monotonic())

    def let(self, words: int) -> None:
        for _ in range(words):
            self.writer.gate.release()

    def text(self) -> str:
        return self.done.get(timeout=WAIT_S)[0]

    def begun(self) -> tuple[int, int, int, str]:
        return self.told.get(timeout=WAIT_S)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.writer.gate.release(1000)
    made.runner.stop()


def test_a_request_joins_those_that_are_being_written_and_each_ends_when_it_does(desk: Desk) -> None:
    desk.submit("one two three four five six seven")
    assert desk.begun() == (1, 0, 0, "one")
    desk.submit("a b")
    desk.let(20)
    assert desk.text() == "a b"
    text, timing = desk.done.get(timeout=WAIT_S)
    assert text == "one two three four five six seven"
    assert timing.batch == 2
    assert 2 in desk.writer.together


def test_one_token_is_one_token(desk: Desk) -> None:
    desk.submit("one two three", max_tokens=1)
    assert desk.text() == "one"


def test_pieces_are_numbered_and_make_the_text(desk: Desk) -> None:
    desk.submit("one two three")
    desk.let(10)
    assert desk.text() == "one two three"
    told = [desk.told.get(timeout=WAIT_S) for _ in range(desk.told.qsize())]
    assert [seq for _, seq, _, _ in told] == list(range(len(told)))
    text = ""
    for _, _, at, part in told:
        text = text[:at] + part
    assert "one two three".startswith(text)


def test_texts_that_may_have_ended_a_process_are_written_one_by_one_with_nothing_beside_them() -> None:
    """Beside each other none could be told from the one that does it: it was tried until the module was given up."""
    suspects = frozenset(text.ljust(16) for text in (b"s1 is long", b"s2 is long"))
    box = Blackbox()
    desk = Desk(watchdog=Watchdog(box, CrashHistory(suspects=suspects)))
    beside: list[set[bytes]] = []

    class Marking(Gated):
        def begin(self, prepared: list[str], options: Options) -> Any:
            beside.append({request for mark in box.marks() for request in mark.requests})
            return super().begin(prepared, options)

        def advance(self, rows: Any) -> None:
            beside.append({request for mark in box.marks() for request in mark.requests})
            super().advance(rows)

    desk.writer = Marking(1000)
    desk.runner.add("writer", desk.writer)
    texts = ["before it", "s1 is long", "s2 is long", "after them"]
    for text in texts:
        desk.submit(text)
    desk.let(20)
    assert [desk.text() for _ in texts] == texts
    of_suspects = [together for together in beside if together & suspects]
    assert len(of_suspects) > 4
    assert all(len(together) == 1 for together in of_suspects), beside
    desk.runner.stop()


class Illegible(Gated):
    """Cannot make a text of tokens that begin with `bad`."""

    def text(self, tokens: Sequence[int]) -> str:
        if tokens and tokens[0] == int.from_bytes(b"bad"):
            raise IndexError("no such token")
        return super().text(tokens)


def test_a_text_whose_tokens_cannot_be_read_fails_alone_and_the_others_are_written(desk: Desk) -> None:
    desk.writer = Illegible(1000)
    desk.runner.add("writer", desk.writer)
    desk.submit("one two three")
    assert desk.begun()[3] == "one"
    desk.submit("bad words")
    desk.let(20)
    assert desk.failed.get(timeout=WAIT_S).code == "module_failed"
    assert desk.text() == "one two three"


def test_what_does_not_fit_in_the_cache_waits_for_those_that_do() -> None:
    desk = Desk(cache_bytes=20)  # each takes its words and as many tokens: 8 and 10
    desk.submit("a b c d", max_tokens=4)
    assert desk.begun()[3] == "a"
    desk.submit("one two three four five", max_tokens=5)
    desk.submit("x y z w", max_tokens=4)
    desk.let(50)
    assert [desk.text() for _ in range(3)] == ["a b c d", "one two three four five", "x y z w"]
    assert max(desk.writer.together) <= 2
    desk.runner.stop()


def test_what_never_fits_is_bad_input() -> None:
    desk = Desk(cache_bytes=10)
    desk.submit("one two three four five six", max_tokens=6)
    error = desk.failed.get(timeout=WAIT_S)
    assert error.code == "bad_input"
    assert "keys and values" in error.detail
    desk.runner.stop()


def test_36_a_text_that_has_been_written_for_a_second_is_told_while_its_words_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each word is a short call of its own. A text that waits for room in the cache is not being written."""
    began, later = time.monotonic(), [0.0]
    clock = SimpleNamespace(monotonic=lambda: began + later[0])
    for module in (continuous_batching, runner):
        monkeypatch.setattr(module, "time", clock)
    desk = Desk(cache_bytes=20, watchdog=Watchdog(hang_s=10.0, clock=clock.monotonic))

    def told() -> list[str]:
        return [str(work.inputs["text"]) for work in desk.runner.working()]

    desk.submit("a b c d", ms_left=600_000.0, max_tokens=4)
    assert desk.begun()[3] == "a"
    desk.submit("one two three four five", ms_left=600_000.0, max_tokens=5)
    assert told() == []
    later[0] = 2.0
    desk.let(1)
    assert desk.begun()[3] == " b"
    assert told() == ["a b c d"]
    later[0] = 4.0  # the next word's own call has lasted for two seconds
    assert told() == ["a b c d"]
    later[0] = 60.0  # more than twenty times the longest call
    assert told() == []
    desk.writer.gate.release(100)
    assert [desk.text() for _ in range(2)] == ["a b c d", "one two three four five"]
    desk.runner.stop()
    assert told() == []


def test_a_text_whose_deadline_passes_stops_between_two_tokens(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.submit("one two three", ms_left=60_000.0)
    assert desk.begun()[3] == "one"
    later = time.monotonic() + 61.0
    monkeypatch.setattr(continuous_batching, "time", SimpleNamespace(monotonic=lambda: later))
    desk.let(2)
    error = desk.failed.get(timeout=WAIT_S)
    assert (error.code, error.step, error.node) == ("timeout", "step", "here")
    assert "tokens" in error.detail


def test_a_text_that_nobody_waits_for_any_more_stops_and_is_not_answered(desk: Desk) -> None:
    desk.submit("one two three")
    desk.begun()
    desk.runner.drop(b"one two three".ljust(16)[:16], "step", 1)
    desk.let(1)
    desk.submit("a b")
    desk.let(10)
    assert desk.text() == "a b"
    assert desk.failed.empty()
    assert desk.done.empty()


def test_a_newer_attempt_of_what_is_being_written_is_written_once_and_told_from_the_beginning(desk: Desk) -> None:
    desk.submit("one two three")
    assert desk.begun() == (1, 0, 0, "one")
    desk.submit("one two three", attempt=2)
    desk.let(10)
    assert desk.text() == "one two three"
    assert (2, 0, 0, "one two") in [desk.told.get(timeout=WAIT_S) for _ in range(desk.told.qsize())]
    assert desk.done.empty()


def test_a_step_that_fails_fails_what_took_it_and_the_next_is_written(desk: Desk) -> None:
    desk.submit("one two")
    desk.begun()
    desk.writer.broken = True
    desk.let(1)
    assert desk.failed.get(timeout=WAIT_S).code == "module_failed"
    desk.writer.broken = False
    desk.submit("x y")
    desk.let(20)
    assert desk.text() == "x y"
