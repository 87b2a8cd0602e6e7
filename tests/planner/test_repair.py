"""How memory is found for a module that the greedy left out: evictions, packing by memory alone, the bounded search."""

from itertools import product

import pytest

from s2m3.planner.solving import repair
from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.repair import Effort, _enough, _search, is_too_much, make_room, no_room, pack
from tests.planner.test_search_parts import instance

_BRANCHES = 13


def problem(devices: dict[str, float], modules: dict[str, tuple[float, str]]) -> Problem:
    """Devices with their memory, and modules with their size and the devices that run them (`"a b"`)."""
    times = {name: (mb, dict.fromkeys(able.split(), 1.0)) for name, (mb, able) in modules.items()}
    return Problem(instance(devices, times, *[[name] for name in modules]))


def layout(given: Problem, **copies: str) -> Layout:
    """A layout of modules by name on devices by name."""
    at = {given.module_at[name]: [given.device_at[d] for d in on.split()] for name, on in copies.items()}
    return Layout(given, at)


def placed(made: Layout) -> dict[str, set[str]]:
    ids = made.problem.device_ids
    named = zip(made.problem.module_ids, made.copies, strict=True)
    return {name: {ids[d] for d in devices} for name, devices in named if devices}


def test_a_module_goes_where_least_is_left_over() -> None:
    given = problem({"a": 9, "b": 5, "c": 7}, {"m": (5, "a b c")})
    found = layout(given)
    assert make_room(found, 0, deep=0)
    assert placed(found) == {"m": {"b"}}
    assert found.routes == [(1,)]


def test_a_module_that_is_too_large_by_rounding_alone_fits() -> None:
    given = problem({"a": 1}, {"m": (1 + SLACK_MB, "a")})
    assert make_room(layout(given), 0, deep=0)
    assert pack(given) == {0: 0}


def test_without_evictions_a_full_device_stays_as_it_is() -> None:
    given = problem({"a": 5, "b": 4}, {"m": (5, "a"), "small": (4, "a b")})
    found = layout(given, small="a")
    assert not make_room(found, 0, deep=0)
    assert placed(found) == {"small": {"a"}}
    assert make_room(found, 0, deep=1)
    assert placed(found) == {"m": {"a"}, "small": {"b"}}
    assert found.free_mb.tolist() == [0, 0]


def test_evictions_that_cause_each_other_are_as_many_as_said() -> None:
    given = problem({"a": 5, "b": 4, "c": 3}, {"m": (5, "a"), "four": (4, "a b"), "three": (3, "b c")})
    found = layout(given, four="a", three="b")
    assert not make_room(found, 0, deep=1)
    assert placed(found) == {"four": {"a"}, "three": {"b"}}
    assert make_room(found, 0, deep=2)
    assert placed(found) == {"m": {"a"}, "four": {"b"}, "three": {"c"}}


def test_the_device_with_most_room_is_tried_first() -> None:
    given = problem({"a": 5, "b": 6, "c": 4}, {"m": (5, "a b"), "x": (4, "a c"), "y": (4, "b c")})
    found = layout(given, x="a", y="b")
    assert make_room(found, 0)
    assert placed(found) == {"m": {"b"}, "x": {"a"}, "y": {"c"}}


def test_of_the_modules_that_are_enough_alone_the_smallest_is_evicted() -> None:
    """`three` frees what is short to the byte."""
    given = problem({"a": 7, "b": 9}, {"m": (5, "a"), "four": (4, "a b"), "three": (3, "a b")})
    found = layout(given, four="a")
    found.add(2, 0)
    found.free_mb[0] = 2.0
    assert make_room(found, 0)
    assert placed(found) == {"m": {"a"}, "four": {"a"}, "three": {"b"}}


def test_of_the_modules_that_are_enough_together_the_largest_are_evicted() -> None:
    given = problem({"a": 5, "b": 5}, {"one": (1, "a b"), "two": (2, "a b"), "too": (2, "a b"), "m": (4, "a")})
    found = layout(given, one="a", two="a", too="a")
    assert make_room(found, 3)
    assert placed(found) == {"one": {"a"}, "two": {"b"}, "too": {"b"}, "m": {"a"}}


def test_a_module_of_less_than_a_megabyte_is_evicted_too() -> None:
    given = problem({"a": 0.75, "b": 0.5}, {"m": (0.75, "a"), "half": (0.5, "a b")})
    found = layout(given, half="a")
    assert make_room(found, 0)
    assert placed(found) == {"m": {"a"}, "half": {"b"}}


@pytest.mark.parametrize("size", [5.0, 8.0])
def test_no_module_is_evicted_for_one_that_is_not_larger(size: float) -> None:
    """Evictions end, because each is for a larger module."""
    given = problem({"a": 10, "b": size}, {"m": (5, "a"), "large": (size, "a b"), "rest": (10 - size, "a")})
    found = layout(given, large="a", rest="a")
    assert not make_room(found, 0)


def test_a_further_copy_of_a_larger_module_gives_way() -> None:
    given = problem({"a": 10, "b": 8}, {"m": (5, "a"), "large": (8, "a b")})
    found = layout(given, large="a b")
    assert make_room(found, 0)
    assert placed(found) == {"m": {"a"}, "large": {"b"}}


def test_what_several_small_modules_do_not_free_a_further_copy_frees() -> None:
    given = problem({"a": 10, "b": 8, "c": 2}, {"m": (5, "a"), "large": (6, "a b"), "small": (2, "a c")})
    found = layout(given, large="a b", small="a")
    assert make_room(found, 0)
    assert placed(found) == {"m": {"a"}, "large": {"b"}, "small": {"a"}}


@pytest.mark.parametrize(
    ("modules", "sizes", "short", "taken"),
    [
        ([0, 1, 2], [3, 2, 1], 4, [0, 1]),
        ([0, 0, 1, 2], [3, 2, 1], 5, [0, 1]),
        ([0, 1], [3, 2], 6, []),
        ([0], [5], SLACK_MB, []),
        ([0], [SLACK_MB], 2 * SLACK_MB, [0]),
    ],
)
def test_as_many_are_taken_as_are_needed(
    modules: list[int], sizes: list[float], short: float, taken: list[int]
) -> None:
    assert _enough(modules, sizes, short) == taken


@pytest.fixture
def without_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_search", lambda *_: None)


@pytest.mark.usefixtures("without_search")
class TestBestFit:
    """Without the exhaustive search behind it."""

    def test_the_most_constrained_module_comes_first(self) -> None:
        assert pack(problem({"a": 2, "b": 2}, {"any": (2, "a b"), "bound": (2, "a")})) == {0: 1, 1: 0}

    def test_of_equally_constrained_modules_the_largest_comes_first(self) -> None:
        """In order of size alone `bound` finds no room."""
        sizes = {"x": (3.0, "a b"), "y": (3.0, "a b"), "z": (5.0, "a b"), "bound": (1.0, "b")}
        assert pack(problem({"a": 6, "b": 6}, sizes)) == {3: 1, 2: 1, 0: 0, 1: 0}

    def test_where_that_finds_no_room_the_largest_of_all_comes_first(self) -> None:
        fours = dict.fromkeys("xyz", (4.0, "a b c"))
        given = problem({"a": 4, "b": 6, "c": 8}, {"bound": (1, "a b"), "five": (5, "a b c"), **fours})
        assert pack(given) == {1: 1, 2: 0, 3: 2, 4: 2, 0: 1}

    def test_both_orders_may_fail(self) -> None:
        assert pack(_only_by_search()) is None


def _only_by_search() -> Problem:
    """9 = 5 + 2 + 2 and 9 = 3 + 3 + 3 exactly: best fit puts a three beside the five."""
    sizes = {"five": 5.0, "x": 3.0, "y": 3.0, "z": 3.0, "two": 2.0, "too": 2.0}
    return problem({"a": 9, "b": 9}, {name: (mb, "a b") for name, mb in sizes.items()})


def _feasible(given: Problem, places: dict[int, int]) -> bool:
    room = given.memory_mb.copy()
    for module, device in places.items():
        room[device] -= given.size_mb[module]
    return bool((room >= -SLACK_MB).all()) and all(d in given.able(m) for m, d in places.items())


def _exists(given: Problem) -> bool:
    everywhere = product(*(given.able(m).tolist() for m in range(len(given.size_mb))))
    return any(_feasible(given, dict(enumerate(places))) for places in everywhere)


def test_the_search_finds_a_packing_wherever_one_exists() -> None:
    tight = _only_by_search()
    found = _search(tight)
    assert found is not None
    assert len(found) == 6
    assert _feasible(tight, found)
    cases = 0
    for sizes in product((2, 3, 5), repeat=4):
        for bound in ("a", "a b"):
            names = {f"m{m}": (float(mb), bound if m == 0 else "a b c") for m, mb in enumerate(sizes)}
            given = problem({"a": 5, "b": 6, "c": 3}, names)
            found = _search(given)
            assert (found is not None) == _exists(given), sizes
            assert found is None or (len(found) == 4 and _feasible(given, found))
            cases += found is not None
    assert cases > 20


def test_the_search_takes_the_module_with_fewest_devices_next_and_of_these_the_largest() -> None:
    given = problem({"a": 4, "b": 4}, {"any": (2, "a b"), "bound": (1, "a"), "large": (3, "a b")})
    found = _search(given)
    assert found is not None
    assert list(found.items()) == [(1, 0), (2, 0), (0, 1)]


def test_the_search_is_bounded_in_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_MOST_BRANCHES", _BRANCHES)
    assert _search(_only_by_search()) is not None
    monkeypatch.setattr(repair, "_MOST_BRANCHES", _BRANCHES - 1)
    assert _search(_only_by_search()) is None


def test_no_room_says_what_each_module_lacks() -> None:
    given = problem({"a": 4, "b": 6}, {"x": (5, "a"), "y": (7, "a b")}).instance
    error = no_room(layout(Problem(given)), [0, 1])
    assert error.detail == (
        "x needs 5 MB; of the devices that can run it, a has the most room left, 4 MB: 1 MB too little; "
        "y needs 7 MB; of the devices that can run it, b has the most room left, 6 MB: 1 MB too little; "
        "all 2 modules take 12 MB, the devices have 10 MB"
    )


class TestIsTooMuch:
    def test_more_than_all_memory_is(self) -> None:
        given = problem({"a": 5, "b": 5}, {"x": (4, "a b"), "y": (4, "a b"), "z": (2, "a b"), "more": (0.5, "a b")})
        assert not is_too_much(given, range(3))
        assert is_too_much(given, range(4))

    def test_more_large_ones_than_devices_hold_are(self) -> None:
        given = problem({"a": 11, "b": 8}, {f"m{n}": (5 + n, "a b") for n in range(3)})
        assert not is_too_much(given, [0, 1])
        assert is_too_much(given, [1, 2, 2])

    def test_exactly_as_many_are_not(self) -> None:
        given = problem({"a": 0.3, "b": 0.7}, {"m": (0.1, "a b")})
        assert not is_too_much(given, [0] * 10)
        assert is_too_much(given, [0] * 11)

    def test_modules_without_memory_count_for_nothing(self) -> None:
        given = problem({"a": 1.0}, {"light": (0.0, "a"), "m": (1.0, "a")})
        assert not is_too_much(given, [0, 0, 0, 1])
        assert not is_too_much(given, [0])


def test_of_equal_devices_the_search_tries_one() -> None:
    everywhere = "a b c d e f g h i j k l"
    given = problem(dict.fromkeys(everywhere.split(), 150.0), {f"m{n}": (100.0, everywhere) for n in range(13)})
    effort = Effort(20_000)
    assert _search(given, effort=effort) is None
    assert effort.branches >= 20_000 - 13


def test_devices_that_run_other_modules_are_not_equal() -> None:
    given = problem({"a": 2, "b": 2}, {"x": (2, "a b"), "y": (2, "a")})
    assert _search(given) == {0: 1, 1: 0}
