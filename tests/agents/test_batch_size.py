"""How many items run together: what pays, what deadlines leave, what fits into a device's memory."""

import pytest

from s2m3.agents.serving.batch_size import BatchSize


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


@pytest.mark.parametrize("said", [2, 8])
def test_a_batch_is_never_larger_than_sixty_four(said: int) -> None:
    size = BatchSize(said)
    ms = 1_000.0
    for _ in range(10):
        run(size, size.limit // 2, ms)
        ms /= 4
        run(size, size.limit, ms)
    assert size.limit == 64


def test_a_size_that_pays_by_a_tenth_is_kept_and_one_that_pays_less_is_not() -> None:
    pays = BatchSize(8)
    run(pays, 4, 10.0)
    run(pays, 8, 8.99)
    assert pays.limit == 16
    barely = BatchSize(8)
    run(barely, 4, 10.0)
    run(barely, 8, 9.0)
    assert barely.limit == 8


def test_a_size_is_judged_by_three_batches_of_both_sizes() -> None:
    size = BatchSize(8)
    run(size, 4, 10.0, times=2)
    run(size, 8, 5.0, times=9)
    assert size.limit == 8
    size.measured(4, 40.0)
    assert size.limit == 8  # it is judged when a batch of the largest size has run
    size.measured(8, 40.0)
    assert size.limit == 16


def test_a_batch_of_five_milliseconds_is_long_enough_to_be_judged_by() -> None:
    size = BatchSize(8)
    run(size, 4, 10.0)
    for _ in range(3):
        size.measured(8, 4.9)
    assert size.limit == 8
    size.measured(8, 5.0)
    assert size.limit == 16


def test_times_are_averaged_so_that_one_slow_batch_decides_nothing() -> None:
    """Of 10, 10 and 20 ms the average is 13 ms an item: 0.7 of what was, 0.3 of what is new."""
    for second, limit in ((11.6, 16), (11.8, 8)):
        size = BatchSize(8)
        for ms in (10.0, 10.0, 20.0):
            size.measured(4, 4 * ms)
        run(size, 8, second)
        assert size.limit == limit, second


def test_a_larger_size_that_stops_paying_is_given_up_for_good() -> None:
    size = BatchSize(8)
    run(size, 4, 10.0)
    run(size, 8, 5.0)
    run(size, 16, 5.0)
    assert size.limit == 8
    run(size, 8, 1.0, times=20)
    assert size.limit == 8


def test_an_odd_size_is_judged_against_the_half_below() -> None:
    size = BatchSize(3)
    run(size, 1, 10.0)
    run(size, 3, 5.0)
    assert size.limit == 6
    size.out_of_memory(5)
    assert size.limit == 2


def test_memory_for_one_item_leaves_batches_of_one() -> None:
    size = BatchSize(8)
    size.out_of_memory(1)
    assert size.limit == 1
    assert size.within([1.0, 1.0], 0.0) == 1


def test_what_fitted_before_is_not_made_larger_by_a_batch_that_did_not_fit() -> None:
    size = BatchSize(4)
    size.out_of_memory(32)
    assert size.limit == 4
    run(size, 2, 10.0)
    run(size, 4, 5.0)
    run(size, 8, 2.5)
    assert size.limit == 16
    run(size, 16, 1.2)
    assert size.limit == 16


def test_the_first_item_runs_whatever_is_left_and_the_others_within_half_of_it() -> None:
    size = BatchSize(8)
    assert size.within([], 100.0) == 0
    assert size.within([0.0, 5.0], 100.0) == 1
    assert size.within([0.4, 0.4, 0.4], 100.0) == 2  # exactly half
    assert size.within([1.0] * 3, 1.0) == 3
