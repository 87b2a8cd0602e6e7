"""Preparing beside the worker, and once per content: real threads, and modules of the test's own with gates."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from prometheus_client import REGISTRY

from s2m3.agents.serving.module import MANY
from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.restart_policy import CrashHistory
from s2m3.agents.supervision.watchdog import LOOP, WORKER, Watchdog
from s2m3.schemas.errors import BusyError
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Hop, Work
from tests.agents.test_runner import Bench, Upper
from tests.conftest import WAIT_S
from tests.zoo.inprocess import loaded
from tests.zoo.samples import sample

#: More than what is prepared in the worker's thread.
_SLOW_S = 0.002


class Decoder(Upper):
    """Prepares slowly, at its own gate, in as many threads as may; a text that begins with `held` waits there."""

    prepares_at_once = MANY
    repeatable = True

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[str] = []
        self.preparing = threading.Semaphore(0)
        self.decoding = threading.Event()
        self.decoding.set()
        self.prepared_in: set[str] = set()
        self.texts: list[str] = []

    def prepare(self, inputs: Mapping[str, Value]) -> str:
        text = str(inputs["text"])
        self.preparing.release()
        threading.Event().wait(_SLOW_S)
        if text.startswith("held"):
            assert self.decoding.wait(WAIT_S)
        self.prepared.append(text)
        self.prepared_in.add(threading.current_thread().name)
        return super().prepare(inputs)

    def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:
        self.texts += batch
        return super().run(batch, wanted)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(bound=100, preparing=2)
    yield made
    made.runner.stop()


@pytest.fixture
def decoder(bench: Bench) -> Iterator[Decoder]:
    """A module that is known to prepare slowly."""
    module = Decoder()
    bench.runner.add("upper", module)
    bench.submit("first")
    assert bench.texts(1) == ["FIRST"]
    assert module.began.acquire(timeout=WAIT_S)
    assert module.preparing.acquire(timeout=WAIT_S)
    yield module
    module.gate.set()
    module.decoding.set()


def hold_the_worker(bench: Bench, module: Decoder, text: str = "running") -> None:
    module.gate.clear()
    bench.submit(text)
    assert module.began.acquire(timeout=WAIT_S)


def until(fulfilled: Callable[[], bool]) -> None:
    """Waits until a condition of the test is fulfilled."""
    end = time.monotonic() + WAIT_S
    while not fulfilled():
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def prepared(bench: Bench) -> int:
    """Returns the number of items that are prepared and wait for the worker."""
    return len(bench.runner._served["upper"].prepared)  # noqa: SLF001


def test_items_are_prepared_while_the_worker_computes_and_run_as_one_batch(bench: Bench, decoder: Decoder) -> None:
    hold_the_worker(bench, decoder)
    for text in ("a", "b", "c"):
        bench.submit(text)
    until(lambda: prepared(bench) == 3)
    assert decoder.batches == [1]
    decoder.gate.set()
    assert bench.texts(4) == ["RUNNING", "A", "B", "C"]
    assert decoder.batches == [1, 1, 3]
    assert {name for name in decoder.prepared_in if name != "runner"} <= {"prepare-0", "prepare-1"}
    assert decoder.threads == {"runner"}


def test_no_more_is_prepared_ahead_than_a_batch_and_an_item_for_each_thread(bench: Bench, decoder: Decoder) -> None:
    hold_the_worker(bench, decoder)
    for number in range(20):
        bench.submit(f"text {number}")
    ahead = decoder.max_batch + 2
    until(lambda: prepared(bench) == ahead)
    assert len(decoder.prepared) == 2 + ahead
    assert bench.runner.queues() == {"upper": 21}
    decoder.gate.set()
    assert sorted(bench.texts(21)) == sorted(["RUNNING", *(f"TEXT {number}" for number in range(20))])


def test_an_item_of_the_same_requester_that_is_prepared_first_waits_for_those_before_it(
    bench: Bench, decoder: Decoder
) -> None:
    decoder.decoding.clear()
    bench.submit("held")
    assert decoder.preparing.acquire(timeout=WAIT_S)
    bench.submit("after")
    bench.submit("another's", task="other")
    assert bench.texts(1) == ["ANOTHER'S"]  # which does not wait for it
    until(lambda: "after" in decoder.prepared)
    decoder.decoding.set()
    assert bench.texts(2) == ["HELD", "AFTER"]


def test_an_item_that_cannot_be_prepared_fails_alone(bench: Bench, decoder: Decoder) -> None:
    hold_the_worker(bench, decoder)
    for text in ("a", "bad", "b"):
        bench.submit(text)
    work, error = bench.failed.get(timeout=WAIT_S)  # before the worker has ended what it runs
    assert (work.inputs["text"], error.code, error.step, error.node) == ("bad", "bad_input", "step", "here")
    decoder.gate.set()
    assert bench.texts(3) == ["RUNNING", "A", "B"]


def test_a_deadline_that_passes_while_an_item_is_prepared_or_waits_for_the_worker_is_told(
    bench: Bench, decoder: Decoder
) -> None:
    hold_the_worker(bench, decoder)
    bench.submit("late", ms_left=100.0)
    threading.Event().wait(0.11)
    decoder.gate.set()
    work, error = bench.failed.get(timeout=WAIT_S)
    assert (work.inputs["text"], error.code) == ("late", "timeout")
    assert bench.texts(1) == ["RUNNING"]


def test_what_is_dropped_while_it_is_prepared_is_not_run(bench: Bench, decoder: Decoder) -> None:
    decoder.decoding.clear()
    bench.submit("held")
    assert decoder.preparing.acquire(timeout=WAIT_S)
    bench.runner.drop(b"held".ljust(16), "step", 1)
    decoder.decoding.set()
    bench.submit("after")
    assert bench.texts(1) == ["AFTER"]
    assert "held" not in decoder.texts
    until(lambda: bench.runner.queues() == {})


def test_a_newer_attempt_of_what_is_being_prepared_is_run_once(bench: Bench, decoder: Decoder) -> None:
    decoder.decoding.clear()
    bench.submit("held")
    assert decoder.preparing.acquire(timeout=WAIT_S)
    bench.submit("held", attempt=2)
    decoder.decoding.set()
    work, _ = bench.done.get(timeout=WAIT_S)
    assert work.attempt == 2
    assert decoder.texts == ["first", "held"]


def test_a_full_queue_counts_what_is_prepared(bench: Bench) -> None:
    bench.runner.stop()
    small, module = Bench(bound=3), Decoder()
    small.runner.add("upper", module)
    small.submit("first")
    small.texts(1)
    assert module.began.acquire(timeout=WAIT_S)
    hold_the_worker(small, module)
    for text in ("a", "b", "c"):
        small.submit(text)
    until(lambda: prepared(small) == 3)
    with pytest.raises(BusyError):
        small.submit("one too many")
    module.gate.set()
    assert small.texts(4) == ["RUNNING", "A", "B", "C"]
    small.runner.stop()


def test_a_module_that_leaves_finishes_what_is_prepared(bench: Bench, decoder: Decoder) -> None:
    gone = threading.Event()
    decoder.decoding.clear()
    bench.submit("held")
    assert decoder.preparing.acquire(timeout=WAIT_S)
    bench.runner.remove("upper", gone.set)
    assert not gone.is_set()
    decoder.decoding.set()
    assert bench.texts(1) == ["HELD"]
    assert gone.wait(WAIT_S)


def test_each_preparing_thread_is_marked_for_the_supervisor_and_watched(decoder: Decoder) -> None:
    box = Blackbox()
    watchdog = Watchdog(box, hang_s=0.01)
    bench = Bench(watchdog=watchdog)
    bench.runner.add("upper", decoder)
    bench.submit("second")
    bench.texts(1)
    decoder.decoding.clear()
    bench.submit("held", ms_left=60_000.0)
    until(lambda: any(mark.slot not in (WORKER, LOOP) for mark in box.marks()))
    (mark,) = box.marks()
    assert (mark.module, mark.requests) == ("upper", (b"held".ljust(16),))
    decoder.decoding.set()
    bench.texts(1)
    until(lambda: not box.marks())
    bench.runner.stop()


def test_a_request_that_may_have_crashed_a_process_is_prepared_and_run_with_nothing_beside_it() -> None:
    suspect = b"suspect".ljust(16)
    box = Blackbox()
    bench = Bench(bound=100, watchdog=Watchdog(box, CrashHistory(suspects=frozenset({suspect}))))
    marks: list[int] = []

    class Watched(Decoder):
        def prepare(self, inputs: Mapping[str, Value]) -> str:
            if inputs["text"] == "suspect":
                marks.append(len(box.marks()))
            return super().prepare(inputs)

        def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:
            if "suspect" in batch:
                marks.extend([len(box.marks()), len(batch)])
            return super().run(batch, wanted)

    module = Watched()
    bench.runner.add("upper", module)
    bench.submit("first")
    bench.texts(1)
    for text in ("a", "suspect", *map(str, range(10))):
        bench.submit(text)
    assert "SUSPECT" in bench.texts(12)
    assert marks == [1, 1, 1]
    bench.runner.stop()


def test_a_request_that_may_have_crashed_a_process_waits_for_what_the_submitters_thread_runs() -> None:
    """A crash beside another request would say nothing of either, and the request went round for longer."""
    suspect = b"suspect".ljust(16)
    box = Blackbox()
    bench = Bench(watchdog=Watchdog(box, CrashHistory(suspects=frozenset({suspect}))))
    light, heavy = Upper(light=True), Decoder()
    bench.runner.add("light", light)
    bench.runner.add("upper", heavy)
    light.gate.clear()
    submitter = threading.Thread(target=bench.submit, args=("beside", "light"))
    submitter.start()
    assert light.began.acquire(timeout=WAIT_S)
    bench.submit("suspect")
    until(lambda: bench.runner._exclusive.is_held)  # noqa: SLF001
    assert [(mark.slot, mark.module) for mark in box.marks()] == [(LOOP, "light")]
    bench.submit("later", "light")  # queued: nothing is begun any more
    assert heavy.texts == []
    light.gate.set()
    assert bench.texts(3) == ["BESIDE", "SUSPECT", "LATER"]
    submitter.join(WAIT_S)
    assert light.threads == {submitter.name, "runner"}
    bench.runner.stop()


def test_a_request_that_may_have_crashed_a_process_runs_in_the_workers_thread_on_a_light_module_too() -> None:
    history = CrashHistory(suspects=frozenset({b"suspect".ljust(16)}))
    bench = Bench(watchdog=Watchdog(crash_history=history))
    light = Upper(light=True)
    bench.runner.add("light", light)
    bench.submit("suspect", "light")
    assert bench.texts(1) == ["SUSPECT"]
    assert light.threads == {"runner"}
    bench.runner.stop()


# ---- once per content ----------------------------------------------------------------------------------------------


def test_equal_inputs_that_wait_are_computed_once_and_each_is_answered(bench: Bench, decoder: Decoder) -> None:
    hold_the_worker(bench, decoder)
    for number in range(4):
        bench.submit("same", request=f"request {number}", task=f"task {number}")
    until(lambda: decoder.prepared.count("same") == 1 and not bench.runner._served["upper"].queue)  # noqa: SLF001
    decoder.gate.set()
    found = [bench.done.get(timeout=WAIT_S)[0] for _ in range(5)]
    assert {work.task for work in found} == {"task", "task 0", "task 1", "task 2", "task 3"}
    assert decoder.texts == ["first", "running", "same"]
    assert decoder.prepared == ["first", "running", "same"]


def test_equal_inputs_to_what_has_finished_are_answered_from_memory(bench: Bench, decoder: Decoder) -> None:
    for number in range(3):
        bench.submit("same", request=f"request {number}")
        _, (outputs, timing, _) = bench.done.get(timeout=WAIT_S)
        assert outputs == {"upper": "SAME"}
        assert (timing.run_ms == 0.0) == (number > 0)
    assert decoder.texts == ["first", "same"]


def test_a_module_that_is_not_said_to_be_repeatable_computes_equal_inputs_again(bench: Bench) -> None:
    module = Decoder()
    module.repeatable = False
    bench.runner.add("upper", module)
    for number in range(3):
        bench.submit("same", request=f"request {number}")
        bench.texts(1)
    assert module.texts == ["same"] * 3


def test_those_of_equal_inputs_fail_with_the_first_each_by_its_own_name(bench: Bench, decoder: Decoder) -> None:
    hold_the_worker(bench, decoder)
    for number in range(3):
        bench.submit("bug", request=f"request {number}")
    until(lambda: decoder.prepared.count("bug") == 1 and not bench.runner._served["upper"].queue)  # noqa: SLF001
    decoder.gate.set()
    failed = [bench.failed.get(timeout=WAIT_S) for _ in range(3)]
    assert {work.request for work, _ in failed} == {f"request {number}".encode().ljust(16) for number in range(3)}
    assert {error.code for _, error in failed} == {"module_failed"}


@pytest.mark.parametrize("how", ["dropped", "late"])
def test_those_of_equal_inputs_are_computed_when_the_first_is_not_wanted_any_more(
    bench: Bench, decoder: Decoder, how: str
) -> None:
    hold_the_worker(bench, decoder)
    bench.submit("same", request="leader", ms_left=1_000.0 if how == "late" else 60_000.0)
    until(lambda: prepared(bench) == 1)
    bench.submit("same", request="follower")
    served = bench.runner._served["upper"]  # noqa: SLF001
    until(lambda: not served.queue and not any(item.key[0] == b"follower".ljust(16) for item in served.preparing))
    if how == "dropped":
        bench.runner.drop(b"leader".ljust(16), "step", 1)
    else:
        threading.Event().wait(1.01)
    decoder.gate.set()
    done = [bench.done.get(timeout=WAIT_S)[0].request for _ in range(2)]
    assert done == [b"running".ljust(16), b"follower".ljust(16)]
    assert bench.failed.qsize() == (how == "late")


def test_those_of_equal_inputs_are_computed_when_the_first_is_dropped_while_it_waits_for_one_before_it(
    bench: Bench, decoder: Decoder
) -> None:
    decoder.decoding.clear()
    bench.submit("held")
    assert decoder.preparing.acquire(timeout=WAIT_S)
    bench.submit("same", request="leader")
    served = bench.runner._served["upper"]  # noqa: SLF001
    until(lambda: sum(item.prepared == "same" for item in served.preparing) == 1)
    bench.submit("same", request="follower", task="other")
    until(lambda: any(leader.followers for leader in served.leaders.values()))
    bench.runner.drop(b"leader".ljust(16), "step", 1)
    assert bench.done.get(timeout=WAIT_S)[0].request == b"follower".ljust(16)  # which does not wait for the other
    decoder.decoding.set()
    assert bench.texts(1) == ["HELD"]
    until(lambda: bench.runner.queues() == {})


def test_a_module_whose_items_were_prepared_beside_the_worker_is_freed_when_it_left(bench: Bench) -> None:
    gone, module = threading.Event(), Decoder()
    freed = weakref.ref(module)
    bench.runner.add("upper", module)
    for text in ("a", "b", "c"):
        bench.submit(text)
        bench.texts(1)
    assert {"prepare-0", "prepare-1"} & module.prepared_in
    del module
    bench.runner.remove("upper", gone.set)
    assert gone.wait(WAIT_S)
    end = time.monotonic() + WAIT_S
    while freed() is not None:
        assert time.monotonic() < end
        gc.collect()


def test_a_follower_that_is_dropped_is_not_answered(bench: Bench, decoder: Decoder) -> None:
    hold_the_worker(bench, decoder)
    bench.submit("same", request="leader")
    until(lambda: prepared(bench) == 1)
    bench.submit("same", request="follower")
    served = bench.runner._served["upper"]  # noqa: SLF001
    until(lambda: any(leader.followers for leader in served.leaders.values()))
    assert bench.runner.queues() == {"upper": 3}
    bench.runner.drop(b"follower".ljust(16), "step", 1)
    decoder.gate.set()
    assert bench.texts(2) == ["RUNNING", "SAME"]
    until(lambda: bench.runner.queues() == {})
    assert bench.done.empty()


def items_run(module: str) -> float:
    """Returns the number of items that the metric says were really computed."""
    return REGISTRY.get_sample_value("s2m3_module_batch_items_sum", {"module": module}) or 0.0


def test_a_hundred_frames_for_four_tasks_at_once_are_at_most_a_hundred_runs() -> None:
    bench, module = Bench(bound=400, preparing=2), Decoder()
    bench.runner.add("tower", module)
    before = items_run("tower")
    for frame in range(100):
        for task in range(4):
            bench.submit(f"frame {frame}", "tower", task=f"task {task}", request=f"{frame}-{task}")
    done = [bench.done.get(timeout=WAIT_S) for _ in range(400)]
    assert len({work.request for work, _ in done}) == 400
    assert all(outputs == {"upper": str(work.inputs["text"]).upper()} for work, (outputs, _, _) in done)
    assert items_run("tower") - before == 100
    assert bench.failed.empty()
    bench.runner.stop()


def test_one_picture_for_four_tasks_runs_their_tower_once(bench: Bench) -> None:
    bench.runner.add("efficientnet", loaded("efficientnet-lite0"))
    before = items_run("efficientnet")
    picture = sample("chelsea.jpg")
    for task in range(4):
        hop = Hop("efficientnet", "here", {"image": "input.image"}, ("features",))
        request = f"request {task}".encode().ljust(16)
        work = Work(request, f"task {task}", "s", 1, 1, "inbox", {"image": picture}, {"s": hop}, 60_000.0)
        bench.runner.submit(work, time.monotonic())
    found = [bench.done.get(timeout=WAIT_S)[1][0]["features"] for _ in range(4)]
    assert all((features == found[0]).all() for features in found)
    assert items_run("efficientnet") - before == 1


# ---- light ---------------------------------------------------------------------------------------------------------


class Claimed(Upper):
    """Says that it is light, and takes two milliseconds."""

    def __init__(self) -> None:
        super().__init__(light=True)

    def prepare(self, inputs: Mapping[str, Value]) -> str:
        threading.Event().wait(_SLOW_S)
        return super().prepare(inputs)


def test_a_module_that_only_claims_to_be_light_runs_in_the_loops_thread_no_more_than_once(bench: Bench) -> None:
    module = Claimed()
    bench.runner.add("upper", module)
    for text in ("a", "b", "c"):
        module.threads.clear()
        bench.submit(text)
        bench.texts(1)
        assert module.threads == {threading.current_thread().name if text == "a" else "runner"}


def test_a_large_input_of_a_light_module_is_not_run_in_the_loops_thread(bench: Bench) -> None:
    module = Upper(light=True)
    bench.runner.add("upper", module)
    bench.submit("a" * 300_000, request="large")
    bench.texts(1)
    assert module.threads == {"runner"}
