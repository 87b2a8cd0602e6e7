"""How many items run together: what pays, what deadlines leave, what fits into a device's memory."""

from collections.abc import Mapping, Sequence

import pytest
import torch

from s2m3.agents.serving.batch_size import BatchSize
from s2m3.schemas.wire.values import Value
from tests.agents.test_runner import Bench, Upper
from tests.conftest import WAIT_S


def run(size: BatchSize, items: int, ms_of_one: float, times: int = 3) -> None:
    for _ in range(times):
        size.measured(items, items * ms_of_one)


def test_where_larger_batches_take_less_for_each_item_they_grow_as_long_as_they_do() -> None:
    size = BatchSize(8)
    cost = {4: 4.0, 8: 2.2, 16: 1.3, 32: 0.9, 64: 0.85}
    for items in (4, 8, 16, 32, 64):
        assert size.limit >= min(items, 64)
        run(size, items, cost[items])
    assert size.limit == 32  # 64 at once took hardly less for each
    run(size, 32, 0.5)
    assert size.limit == 32  # and is not tried again


def test_where_batches_gain_nothing_they_stay_as_the_module_says() -> None:
    size = BatchSize(8)
    run(size, 4, 2.0)
    run(size, 8, 2.0)
    assert size.limit == 8


def test_few_or_short_batches_decide_nothing() -> None:
    size = BatchSize(8)
    run(size, 4, 4.0)
    run(size, 8, 1.0, times=2)
    assert size.limit == 8
    quick = BatchSize(8)
    run(quick, 4, 0.2, times=10)
    run(quick, 8, 0.05, times=10)
    assert quick.limit == 8


def test_a_module_without_batches_has_none() -> None:
    size = BatchSize(1)
    run(size, 1, 100.0, times=10)
    assert size.limit == 1


def test_a_batch_takes_half_of_the_shortest_time_that_is_left() -> None:
    size = BatchSize(8)
    assert size.within([1.0] * 20, 0.0) == 8  # nothing is known yet
    assert size.within([1.0] * 20, 100.0) == 5
    assert size.within([10.0, 10.0, 0.2, 10.0], 100.0) == 2
    assert size.within([0.01], 100.0) == 1


def test_what_did_not_fit_into_memory_is_not_tried_again() -> None:
    size = BatchSize(8)
    size.out_of_memory(8)
    assert size.limit == 4
    run(size, 2, 4.0)
    run(size, 4, 2.0)
    assert size.limit == 4


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


@pytest.mark.parametrize("said", [2, 8])
def test_a_batch_is_never_larger_than_sixty_four(said: int) -> None:
    size = BatchSize(said)
    ms = 1_000.0
    for _ in range(10):
        run(size, size.limit // 2, ms)
        ms /= 4
        run(size, size.limit, ms)
    assert size.limit == 64
