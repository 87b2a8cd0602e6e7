"""The runner with real threads and small modules of the test's own: order, batches, bounds, deadlines, bugs."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from queue import Queue
from typing import Any

import pytest

from s2m3.agents.modules.slices import between_slices
from s2m3.agents.serving.runner import Runner
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.schemas.errors import (
    BadInputError,
    BusyError,
    ModuleFailedError,
    NotReadyError,
    RequestTimeoutError,
    S2M3Error,
)
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Hop, Timing, Work
from tests.conftest import WAIT_S

Outcome = tuple[Work, Any]


class Upper:
    """Makes texts capitals; waits at its gate; refuses 'bad'; breaks on 'bug'."""

    nbytes = 0
    max_batch = 4

    def __init__(self, *, light: bool = False) -> None:
        self.light = light
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def prepare(self, inputs: Mapping[str, Value]) -> str:
        if inputs["text"] == "bad":
            raise BadInputError("not a text")
        return str(inputs["text"])

    def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:  # noqa: ARG002
        self.began.release()
        assert self.gate.wait(WAIT_S)
        self.batches.append(len(batch))
        self.threads.add(threading.current_thread().name)
        if "bug" in batch:
            raise ZeroDivisionError("a bug")
        return [{"upper": text.upper(), "unasked": text} for text in batch]


class Bench:
    """A runner and what came of the work given to it."""

    def __init__(self, bound: int = 3, preparing: int = 1, watchdog: Watchdog | None = None) -> None:
        self.done: Queue[Outcome] = Queue()
        self.told: Queue[tuple[Work, int, int, str]] = Queue()
        self.failed: Queue[tuple[Work, S2M3Error]] = Queue()
        self.runner = Runner(
            "here",
            bound,
            self._done,
            lambda work, error: self.failed.put((work, error)),
            self._send_piece,
            watchdog=watchdog,
            preparing=preparing,
        )
        self.runner.start()

    def _done(self, work: Work, outputs: Mapping[str, Value], timing: Timing, ms_left: float) -> None:
        self.done.put((work, (dict(outputs), timing, ms_left)))

    def _send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        self.told.put((work, seq, at, text))
        return True

    def submit(  # what a work says
        self,
        text: str,
        module: str = "upper",
        ms_left: float = 60_000.0,
        attempt: int = 1,
        task: str = "task",
        reply_to: str = "reply",
        request: str | None = None,
    ) -> None:
        route = {"step": Hop(module, "here", {"text": "input.text"}, ("upper",))}
        id_ = (request or text).encode().ljust(16)
        work = Work(id_, task, "step", attempt, 1, reply_to, {"text": text}, route, ms_left)
        self.runner.submit(work, time.monotonic())

    def texts(self, count: int) -> list[str]:
        return [self.done.get(timeout=WAIT_S)[1][0]["upper"] for _ in range(count)]


def occupied(bench: Bench) -> Upper:
    """Returns a module that computes its first item, "running", until its gate is opened."""
    module = Upper()
    module.gate.clear()
    bench.runner.add("upper", module)
    bench.submit("running")
    assert module.began.acquire(timeout=WAIT_S)
    return module


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.runner.stop()


def test_only_what_was_asked_for_comes_back_with_its_timing(bench: Bench) -> None:
    bench.runner.add("upper", Upper())
    bench.submit("a")
    _, (outputs, timing, ms_left) = bench.done.get(timeout=WAIT_S)
    assert outputs == {"upper": "A"}
    assert (timing.node, timing.batch) == ("here", 1)
    assert 0 < ms_left <= 60_000


def test_items_that_wait_run_together_up_to_the_modules_limit(bench: Bench) -> None:
    module = occupied(bench)
    for text in ("a", "b", "c"):
        bench.submit(text)
    module.gate.set()
    assert bench.texts(4) == ["RUNNING", "A", "B", "C"]
    assert module.batches == [1, 3]


def test_a_full_queue_is_busy(bench: Bench) -> None:
    module = occupied(bench)
    for text in ("a", "b", "c"):
        bench.submit(text)
    with pytest.raises(BusyError):
        bench.submit("one too many")
    assert bench.runner.queues() == {"upper": 4}
    module.gate.set()
    assert bench.texts(4) == ["RUNNING", "A", "B", "C"]


def test_a_newer_attempt_of_what_waits_takes_its_place_and_is_run_once(bench: Bench) -> None:
    module = occupied(bench)
    for attempt in (1, 3, 2):
        bench.submit("a", attempt=attempt)
    bench.submit("b")
    module.gate.set()
    done = [bench.done.get(timeout=WAIT_S)[0] for _ in range(3)]
    assert [(work.inputs["text"], work.attempt) for work in done] == [("running", 1), ("a", 3), ("b", 1)]
    bench.submit("a", attempt=4)  # what has run is run again: its output may have been lost
    assert bench.texts(1) == ["A"]


def test_work_whose_deadline_is_past_is_not_run(bench: Bench) -> None:
    module = Upper()
    module.gate.clear()
    bench.runner.add("upper", module)
    with pytest.raises(RequestTimeoutError):
        bench.submit("late", ms_left=0.0)
    bench.submit("running")
    assert module.began.acquire(timeout=WAIT_S)
    bench.submit("expires", ms_left=1.0)
    threading.Event().wait(0.01)
    module.gate.set()
    work, error = bench.failed.get(timeout=WAIT_S)
    assert (work.inputs["text"], error.code, error.step, error.node) == ("expires", "timeout", "step", "here")


def test_a_bad_item_does_not_fail_those_it_waits_with(bench: Bench) -> None:
    module = occupied(bench)
    for text in ("a", "bad", "b"):
        bench.submit(text)
    module.gate.set()
    assert bench.texts(3) == ["RUNNING", "A", "B"]
    assert bench.failed.get(timeout=WAIT_S)[1].code == "bad_input"


def test_a_module_that_breaks_on_one_item_answers_the_others_and_lives(bench: Bench) -> None:
    module = occupied(bench)
    for text in ("a", "bug", "b"):
        bench.submit(text)
    module.gate.set()
    assert bench.texts(3) == ["RUNNING", "A", "B"]
    work, error = bench.failed.get(timeout=WAIT_S)
    assert work.inputs["text"] == "bug"
    assert isinstance(error, ModuleFailedError)
    assert "ZeroDivisionError" in error.detail
    bench.submit("after")
    assert bench.texts(1) == ["AFTER"]


def test_the_module_whose_item_waits_longest_is_next(bench: Bench) -> None:
    one, two = Upper(), Upper()
    one.gate.clear()
    bench.runner.add("one", one)
    bench.runner.add("two", two)
    bench.submit("x", "one")
    assert one.began.acquire(timeout=WAIT_S)
    bench.submit("second", "two")
    bench.submit("third", "one")
    one.gate.set()
    assert bench.texts(3) == ["X", "SECOND", "THIRD"]


def test_41_another_task_is_in_the_next_batch_whatever_one_task_has_queued() -> None:
    bench, module = Bench(bound=100), Upper()
    module.max_batch = 2
    bench.runner.add("upper", module)
    module.gate.clear()
    for n in range(50):
        bench.submit(f"flood {n}", reply_to=f"client/{n}/in")
    assert module.began.acquire(timeout=WAIT_S)
    bench.submit("other", task="other")
    module.gate.set()
    assert "OTHER" in bench.texts(4)


def test_41_another_modules_task_is_next_whatever_one_task_has_queued(bench: Bench) -> None:
    flooded, quiet = Upper(), Upper()
    bench.runner.add("flooded", flooded)
    bench.runner.add("quiet", quiet)
    flooded.max_batch = 1
    flooded.gate.clear()
    for n in range(4):
        bench.submit(f"flood {n}", "flooded")
        if not n:
            assert flooded.began.acquire(timeout=WAIT_S)
    bench.submit("other", "quiet", task="other")
    flooded.gate.set()
    assert "OTHER" in bench.texts(2)


def test_41_a_full_queue_takes_who_has_little_and_says_busy_to_who_has_most(bench: Bench) -> None:
    module = Upper()
    bench.runner.add("upper", module)
    module.gate.clear()
    bench.submit("running")
    assert module.began.acquire(timeout=WAIT_S)
    for n in range(3):
        bench.submit(f"flood {n}")
    bench.submit("other", task="other")
    work, error = bench.failed.get(timeout=WAIT_S)
    assert (work.inputs["text"], error.code, error.step, error.node) == ("flood 2", "busy", "step", "here")
    module.gate.set()
    assert sorted(bench.texts(4)) == ["FLOOD 0", "FLOOD 1", "OTHER", "RUNNING"]


def test_a_module_that_leaves_finishes_what_it_has_and_takes_no_more(bench: Bench) -> None:
    module = Upper()
    module.gate.clear()
    gone = threading.Event()
    bench.runner.add("upper", module)
    bench.submit("running")
    assert module.began.acquire(timeout=WAIT_S)
    bench.submit("queued")
    bench.runner.remove("upper", gone.set)
    with pytest.raises(NotReadyError):
        bench.submit("too late")
    assert not gone.is_set()
    module.gate.set()
    assert bench.texts(2) == ["RUNNING", "QUEUED"]
    assert gone.wait(WAIT_S)
    with pytest.raises(NotReadyError):
        bench.submit("long gone")


def test_a_module_that_left_is_freed_though_nothing_runs_after_it(bench: Bench) -> None:
    """Its memory counts as free from then on: the next module is loaded into it."""
    gone, module = threading.Event(), Upper()
    freed = weakref.ref(module)
    bench.runner.add("upper", module)
    del module
    bench.submit("a")
    assert bench.texts(1) == ["A"]
    bench.runner.remove("upper", gone.set)
    assert gone.wait(WAIT_S)
    until = time.monotonic() + WAIT_S
    while freed() is not None:
        assert time.monotonic() < until
        gc.collect()  # as the loader does when it is told (memory.py)


class Shapeless(Upper):
    """Gives something else than outputs for 'nothing'."""

    def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:
        nothing: Any = None
        return [nothing if "NOTHING" in found.values() else found for found in super().run(batch, wanted)]


def test_a_module_that_gives_no_outputs_fails_that_item_and_the_worker_goes_on(bench: Bench) -> None:
    bench.runner.add("upper", Shapeless())
    bench.submit("nothing")
    work, error = bench.failed.get(timeout=WAIT_S)
    assert (work.inputs["text"], error.code) == ("nothing", "module_failed")
    bench.submit("next")
    assert bench.texts(1) == ["NEXT"]


def test_a_light_module_runs_where_it_is_asked_and_a_heavy_one_in_the_workers_thread(bench: Bench) -> None:
    light, heavy = Upper(light=True), Upper()
    bench.runner.add("light", light)
    bench.runner.add("heavy", heavy)
    bench.submit("a", "light")
    assert bench.done.qsize() == 1
    bench.submit("b", "heavy")
    assert bench.texts(2) == ["A", "B"]
    assert light.threads == {threading.current_thread().name}
    assert heavy.threads == {"runner"}


def test_what_items_take_is_measured(bench: Bench) -> None:
    bench.runner.add("upper", Upper())
    assert bench.runner.measured_ms() == {}
    bench.submit("a")
    bench.texts(1)
    assert bench.runner.measured_ms()["upper"] > 0


class Sliced(Upper):
    """Takes a slice for each character, and waits at its gate before the second."""

    def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:
        between_slices()
        outputs = super().run(batch, wanted)
        between_slices()
        return outputs


def test_36_long_work_looks_at_its_deadline_between_slices(bench: Bench) -> None:
    module = Sliced()
    module.gate.clear()
    bench.runner.add("upper", module)
    bench.submit("running", ms_left=50.0)
    assert module.began.acquire(timeout=WAIT_S)
    threading.Event().wait(0.06)
    module.gate.set()
    work, error = bench.failed.get(timeout=WAIT_S)
    assert (work.inputs["text"], error.code) == ("running", "timeout")
    assert error.detail == "the deadline passed while it was being computed"
    bench.submit("next")
    assert bench.texts(1) == ["NEXT"]


def test_36_work_that_has_been_computed_for_a_second_is_told_until_it_ends(bench: Bench) -> None:
    module = occupied(bench)
    bench.submit("waits")
    assert bench.runner.working() == []
    until = time.monotonic() + WAIT_S
    while not bench.runner.working():
        assert time.monotonic() < until
        threading.Event().wait(0.05)
    assert [work.inputs["text"] for work in bench.runner.working()] == ["running"]
    module.gate.set()
    bench.texts(2)
    assert bench.runner.working() == []


def test_37_the_inputs_of_works_that_wait_or_run_are_counted(bench: Bench) -> None:
    module = occupied(bench)
    bench.submit("abc")
    bench.submit("de")
    assert bench.runner.waiting_bytes() == len("running") + len("abc") + len("de")
    module.gate.set()
    bench.texts(3)
    bench.runner.stop()
    assert bench.runner.waiting_bytes() == 0


def test_37_a_newer_attempt_with_other_inputs_is_counted_with_these(bench: Bench) -> None:
    module = occupied(bench)
    bench.submit("abc")
    bench.submit("a longer text", request="abc", attempt=2)
    assert bench.runner.waiting_bytes() == len("running") + len("a longer text")
    module.gate.set()
    assert bench.texts(2) == ["RUNNING", "A LONGER TEXT"]


def test_41_an_item_that_runs_at_once_puts_no_other_task_on_a_level_with_its_own(bench: Bench) -> None:
    """The worker serves those that have been given less: its time goes on from theirs."""
    shares = bench.runner._shares  # noqa: SLF001
    bench.runner.add("light", Upper(light=True))
    shares.charge(("busy", "reply"), 1_000.0)
    bench.submit("a", "light", task="busy")
    assert shares.start_of("busy") > 1_000.0
    assert shares.start_of("other") == 0.0


class PanicException(BaseException):  # the name that Rust's bindings give it
    """What a panic in tokenizers raises."""


class Panics(Upper):
    """Panics at 'panic'."""

    def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:
        if "PANIC" in (found := super().run(batch, wanted))[0].values():
            raise PanicException("called `Option::unwrap()` on a `None` value")
        return found


def test_a_panic_in_rust_fails_that_item_and_the_worker_goes_on(bench: Bench) -> None:
    bench.runner.add("upper", Panics())
    bench.submit("panic")
    work, error = bench.failed.get(timeout=WAIT_S)
    assert (work.inputs["text"], error.code) == ("panic", "module_failed")
    bench.submit("next")
    assert bench.texts(1) == ["NEXT"]
