"""A device whose memory is full: fewer texts and smaller batches at once, none lost, none told twice."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from queue import Queue
from typing import Any

import pytest
import torch

from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Work
from tests.agents.test_continuous_batching import Desk, Gated
from tests.agents.test_runner import Bench, Upper
from tests.conftest import WAIT_S


class Small(Gated):
    """A writer on a device with memory for the caches of so many texts."""

    def __init__(self, begins: int, advances: int) -> None:
        super().__init__(1_000_000)
        self.rows: list[Any] = []
        self.begins, self.advances = begins, advances
        #: texts begun beyond those that fit
        self.refused = 0

    def begin(self, prepared: list[str], options: Options) -> Any:
        if len(self.rows) >= self.begins:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.rows.append(super().begin(prepared, options))
        return self.rows[-1]

    def advance(self, rows: Any) -> None:
        if len(rows) > self.advances:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        super().advance(rows)

    def drop(self, rows: Any) -> None:
        self.rows = [row for row in self.rows if row not in rows]


class SmallDesk(Desk):
    """The desk with a small writer; what was told is kept for each text."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: dict[bytes, list[tuple[int, int, str]]] = defaultdict(list)
        self.begun_texts: Queue[bytes] = Queue()

    def serve(self, writer: Small) -> None:
        self.writer = writer
        self.runner.add("writer", writer)

    def _send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        self.pieces[work.request].append((seq, at, text))
        if seq == 0:
            self.begun_texts.put(work.request)
        return True


@pytest.fixture
def desk() -> Iterator[SmallDesk]:
    made = SmallDesk()
    yield made
    made.writer.gate.release(1000)
    made.runner.stop()


TEXTS = ["a b c d e f g h", "one two three four five", "x y z w v u", "red green blue white"]


def test_texts_that_do_not_fit_together_are_written_fewer_at_once_and_each_is_told_once(desk: SmallDesk) -> None:
    writer = Small(begins=4, advances=3)
    desk.serve(writer)
    for number, text in enumerate(TEXTS):
        desk.submit(text)
        desk.let(min(2 * number, 2))  # the step that is under way, and the one that takes the text in
        desk.begun_texts.get(timeout=WAIT_S)
    desk.let(100)
    assert sorted(desk.text() for _ in TEXTS) == sorted(TEXTS)
    assert desk.failed.empty()
    assert (writer.refused, max(writer.together[6:])) == (1, 2)  # six steps until the four had begun
    for text in TEXTS:
        told = desk.pieces[text.encode().ljust(16)[:16]]
        assert [seq for seq, _, _ in told] == list(range(len(told)))
        read = ""
        for _, at, piece in told:
            assert at == len(read), "a text that begins again takes back what was told"
            read += piece
        assert text.startswith(read)


def test_a_text_for_which_there_is_no_room_waits_until_another_has_ended(desk: SmallDesk) -> None:
    writer = Small(begins=2, advances=2)
    desk.serve(writer)
    for number, text in enumerate(TEXTS[:2]):
        desk.submit(text)
        desk.let(2 * number)
        desk.begun_texts.get(timeout=WAIT_S)
    for text in TEXTS[2:]:
        desk.submit(text)
    desk.let(100)
    assert sorted(desk.text() for _ in TEXTS) == sorted(TEXTS)
    assert writer.refused == 1  # from then on two at once are begun
    assert desk.failed.empty()


def test_a_text_that_does_not_fit_alone_fails_and_the_next_one_is_written(desk: SmallDesk) -> None:
    writer = Small(begins=0, advances=2)
    desk.serve(writer)
    desk.submit("one")
    assert desk.failed.get(timeout=WAIT_S).code == "module_failed"
    writer.begins = 1
    desk.submit("two")
    desk.let(2)
    assert desk.text() == "two"


class Large(Upper):
    """A module on a device with memory for two items."""

    def run(self, batch: Sequence[str], wanted: frozenset[str]) -> list[dict[str, Value]]:
        outputs = super().run(batch, wanted)
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return outputs

    def prepare(self, inputs: Mapping[str, Value]) -> str:
        return super().prepare(inputs)


def test_a_full_device_makes_batches_smaller_and_loses_nothing() -> None:
    bench, module = Bench(bound=20), Large()
    bench.runner.add("upper", module)
    module.gate.clear()
    bench.submit("running")
    assert module.began.acquire(timeout=WAIT_S)
    for number in range(8):
        bench.submit(f"text {number}")
    module.gate.set()
    assert sorted(bench.texts(9)) == sorted(["RUNNING", *(f"TEXT {number}" for number in range(8))])
    assert max(module.batches[2:]) <= 2
    assert bench.failed.empty()
    bench.runner.stop()
