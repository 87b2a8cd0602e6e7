"""From one placement to another, a module that serves never stops serving, and memory is never overdrawn."""

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from s2m3.planner.solving.migration import Move, is_reachable, steps

ROOM = {"a": 4.0, "b": 4.0, "c": 4.0}
SIZE = {"x": 3.0, "y": 3.0, "z": 1.0}
ABLE = {module: set(ROOM) for module in SIZE}


def _steps(
    current: Mapping[str, set[str]], desired: Mapping[str, set[str]], ready: Mapping[str, set[str]]
) -> list[Move]:
    return steps(current, desired, ready, room_mb=ROOM, size_mb=SIZE, able=ABLE)


def test_the_new_copy_loads_before_the_old_one_goes() -> None:
    assert _steps({"x": {"a"}}, {"x": {"b"}}, {"x": {"a"}}) == [Move("load", "x", "b")]
    assert _steps({"x": {"a", "b"}}, {"x": {"b"}}, {"x": {"a"}}) == []
    assert _steps({"x": {"a", "b"}}, {"x": {"b"}}, {"x": {"a", "b"}}) == [Move("unload", "x", "a")]


def test_what_is_not_desired_any_more_goes_at_once() -> None:
    assert _steps({"x": {"a"}}, {}, {"x": {"a"}}) == [Move("unload", "x", "a")]


def test_a_load_that_does_not_fit_waits_for_the_room() -> None:
    current, desired = {"x": {"a"}, "y": {"b"}}, {"x": {"c"}, "y": {"a"}}
    assert _steps(current, desired, current) == [Move("load", "x", "c")]


def test_two_that_swap_full_devices_go_round_by_a_third() -> None:
    current, desired = {"x": {"a"}, "y": {"b"}}, {"x": {"b"}, "y": {"a"}}
    assert _steps(current, desired, current) == [Move("load", "x", "c")]
    assert is_reachable(current, desired, room_mb=ROOM, size_mb=SIZE, able=ABLE)


def test_a_swap_without_a_third_device_is_not_reachable_and_nothing_is_unloaded() -> None:
    current, desired = {"x": {"a"}, "y": {"b"}}, {"x": {"b"}, "y": {"a"}}
    room = {"a": 4.0, "b": 4.0}
    assert steps(current, desired, current, room_mb=room, size_mb=SIZE, able=ABLE) == []
    assert not is_reachable(current, desired, room_mb=room, size_mb=SIZE, able=ABLE)


def test_what_serves_nowhere_loads_first() -> None:
    moves = _steps({"x": {"a"}}, {"x": {"a", "b"}, "y": {"b"}}, {"x": {"a"}})
    assert moves == [Move("load", "y", "b")]


copies = st.sets(st.sampled_from(sorted(ROOM)), min_size=1, max_size=2)
placements = st.fixed_dictionaries(dict.fromkeys(SIZE, copies))


def _fits(placement: Mapping[str, set[str]]) -> bool:
    return all(sum(SIZE[m] for m, devices in placement.items() if d in devices) <= room for d, room in ROOM.items())


@settings(max_examples=300)
@given(placements.filter(_fits), placements.filter(_fits), st.data())
def test_on_the_way_everything_serves_and_fits(
    current: dict[str, set[str]], desired: dict[str, set[str]], data: st.DataObject
) -> None:
    held = {module: set(devices) for module, devices in current.items()}
    ready = {module: set(devices) for module, devices in current.items()}
    for _ in range(60):
        for move in _steps(held, desired, ready):
            if move.verb == "load":
                held[move.module].add(move.device)
            else:
                held[move.module].discard(move.device)
                ready[move.module].discard(move.device)
        assert _fits(held)
        assert all(ready.values()), "every module serves somewhere"
        loading = [(m, d) for m in held for d in sorted(held[m] - ready[m])]
        if loading:  # they get ready in any order
            module, device = data.draw(st.sampled_from(loading))
            ready[module].add(device)
        elif not _steps(held, desired, ready):
            break
    reachable = is_reachable(current, desired, room_mb=ROOM, size_mb=SIZE, able=ABLE)
    if reachable:
        assert held == desired


def test_of_several_that_fit_the_unserved_load_first_then_the_largest_then_by_name() -> None:
    room = {"a": 9.0, "b": 9.0}
    moves = steps({"z": {"a"}}, {m: {"b"} for m in "xyz"}, {"z": {"a"}}, room_mb=room, size_mb=SIZE, able=ABLE)
    assert moves == [Move("load", m, "b") for m in "xyz"]
    moves = steps({}, {"z": {"a"}, "y": {"b", "a"}, "x": {"a"}}, {}, room_mb=room, size_mb=SIZE)
    assert moves == [Move("load", "x", "a"), Move("load", "y", "a"), Move("load", "y", "b"), Move("load", "z", "a")]


def test_what_loads_takes_its_room_from_those_behind_it() -> None:
    moves = steps({}, {"x": {"a"}, "y": {"a"}, "z": {"a"}}, {}, room_mb={"a": 4.0}, size_mb=SIZE)
    assert moves == [Move("load", "x", "a"), Move("load", "z", "a")]


def test_a_device_that_is_not_there_is_loaded_with_nothing_and_holds_nothing() -> None:
    current = {"x": {"gone"}}
    assert steps(current, {"x": {"gone", "a"}}, {}, room_mb=ROOM, size_mb=SIZE) == [Move("load", "x", "a")]
    assert steps({}, {"x": {"gone"}}, {}, room_mb=ROOM, size_mb=SIZE) == []


def test_a_module_of_unknown_size_that_is_held_takes_no_room() -> None:
    moves = steps({"odd": {"a"}}, {"odd": {"a"}, "x": {"a"}}, {}, room_mb={"a": 3.0}, size_mb=SIZE)
    assert moves == [Move("load", "x", "a")]


def test_a_copy_whose_memory_is_waited_for_leaves_when_any_other_serves() -> None:
    current = {"x": {"a", "b"}, "y": {"c"}}
    desired = {"x": {"c"}, "y": {"a", "c"}}  # y waits for the room of x at a
    moves = _steps(current, desired, current)
    assert Move("unload", "x", "a") in moves
    assert Move("unload", "x", "b") not in moves, "of the copies that serve one stays"


def test_a_copy_that_does_not_serve_and_is_not_wanted_leaves_at_once() -> None:
    assert _steps({"x": {"a", "b"}}, {"x": {"c"}}, {"x": {"a"}}) == [Move("load", "x", "c"), Move("unload", "x", "b")]


def test_while_something_loads_nothing_goes_a_way_round() -> None:
    current, desired = {"x": {"a"}, "y": {"b"}, "z": {"c"}}, {"x": {"b"}, "y": {"a"}, "z": {"c"}}
    assert _steps(current, desired, {"x": {"a"}, "y": {"b"}}) == []
    assert _steps(current, desired, current) == [Move("load", "x", "c")]


def test_the_way_round_is_the_first_module_in_the_way_and_the_first_device_that_can_run_it() -> None:
    current, desired = {"x": {"a"}, "y": {"b"}}, {"x": {"b"}, "y": {"a"}}
    room = {**ROOM, "d": 4.0}

    def moves(able: dict[str, set[str]]) -> list[Move]:
        return steps(current, desired, current, room_mb=room, size_mb=SIZE, able=able)

    assert moves({"x": {"d", "c"}, "y": {"d", "c"}}) == [Move("load", "x", "c")]
    assert moves({"y": {"d"}}) == [Move("load", "y", "d")]
    assert moves({"x": {"a", "b"}, "y": {"a", "b"}}) == []
    assert steps(current, desired, current, room_mb={**room, "c": 2.0}, size_mb=SIZE, able=ABLE) == []
    assert steps(current, desired, current, room_mb=room, size_mb=SIZE) == []


def test_a_module_that_is_not_wanted_at_all_goes_no_way_round() -> None:
    current, desired = {"x": {"a"}, "y": {"b"}}, {"y": {"a"}}
    assert _steps(current, desired, current) == [Move("unload", "x", "a")]


def test_what_fits_exactly_fits() -> None:
    assert steps({}, {"x": {"a"}}, {}, room_mb={"a": 3.0}, size_mb=SIZE) == [Move("load", "x", "a")]
    assert steps({}, {"x": {"a"}}, {}, room_mb={"a": 2.999}, size_mb=SIZE) == []


def test_a_placement_that_there_is_is_reached_and_one_without_room_is_not() -> None:
    assert is_reachable({"x": {"a"}}, {"x": {"a"}}, room_mb=ROOM, size_mb=SIZE, able=ABLE)
    assert is_reachable({"x": {"a"}}, {}, room_mb=ROOM, size_mb=SIZE, able=ABLE)
    assert is_reachable({}, {"x": {"a", "b", "c"}}, room_mb=ROOM, size_mb=SIZE, able=ABLE)
    assert not is_reachable({"x": {"a"}}, {"x": {"a"}, "y": {"a"}}, room_mb=ROOM, size_mb=SIZE, able=ABLE)
