"""Which modules fit together: what an exhaustive search says, at the cost of what a question adds and removes."""

import random
from itertools import product

import pytest

from s2m3.planner.solving import fitting as fitting_module
from s2m3.planner.solving.fitting import Fitting
from s2m3.planner.solving.layout import SLACK_MB
from s2m3.planner.solving.problem import Problem
from tests.planner.test_search_parts import instance

#: module -> memory, and the devices that run it ("a b")
Modules = dict[str, tuple[float, str]]


def fitting(devices: dict[str, float], modules: Modules, **current: str) -> Fitting:
    return Fitting(problem(devices, modules).instance, {name: on.split() for name, on in current.items()})


def problem(devices: dict[str, float], modules: Modules) -> Problem:
    times = {name: (mb, dict.fromkeys(able.split(), 1.0)) for name, (mb, able) in modules.items()}
    return Problem(instance(devices, times, *[[name] for name in modules]))


def is_feasible(devices: dict[str, float], modules: Modules, places: dict[str, str]) -> bool:
    room = dict(devices)
    for module, device in places.items():
        room[device] -= modules[module][0]
    return min(room.values()) >= -SLACK_MB and all(device in modules[m][1].split() for m, device in places.items())


def exists(devices: dict[str, float], modules: Modules, asked: set[str]) -> bool:
    names = sorted(asked)
    everywhere = product(*(modules[name][1].split() for name in names))
    return any(is_feasible(devices, modules, dict(zip(names, on, strict=True))) for on in everywhere)


def random_site(seed: int) -> tuple[dict[str, float], Modules, random.Random]:
    chance = random.Random(seed)  # noqa: S311  # a case, no secret
    devices = {name: float(chance.randint(4, 12)) for name in "abc"[: chance.randint(1, 3)]}
    modules: Modules = {
        f"m{n}": (
            float(chance.randint(1, 7)),
            " ".join(sorted(chance.sample(sorted(devices), chance.randint(1, len(devices))))),
        )
        for n in range(8)
    }
    return devices, modules, chance


@pytest.mark.parametrize("seed", range(40))
def test_of_small_sites_each_answer_is_that_of_an_exhaustive_search(seed: int) -> None:
    devices, modules, chance = random_site(seed)
    asked_of = fitting(devices, modules)
    asked: set[str] = set()
    for _ in range(30):
        asked = asked ^ set(chance.sample(sorted(modules), chance.randint(1, 3)))
        error = asked_of.why_not(asked)
        assert (error is None) == exists(devices, modules, asked), asked
        if error is None:
            found = {module: on for module, (on,) in asked_of.placement.items()}
            assert found.keys() == asked
            assert is_feasible(devices, modules, found)


def test_copies_stay_where_they_are() -> None:
    devices, modules = {"a": 5.0, "b": 9.0}, {"x": (2.0, "a b"), "y": (2.0, "a b"), "new": (2.0, "a b")}
    asked_of = fitting(devices, modules, x="b", y="gone b")
    assert asked_of.why_not(["x", "y", "new"]) is None
    assert asked_of.placement == {"x": ["b"], "y": ["b"], "new": ["a"]}


def test_a_copy_leaves_a_device_that_cannot_run_it_any_more() -> None:
    asked_of = fitting({"a": 5.0, "b": 9.0}, {"x": (2.0, "b")}, x="a")
    assert asked_of.why_not(["x"]) is None
    assert asked_of.placement == {"x": ["b"]}


def test_an_error_says_what_lacks_how_much() -> None:
    asked_of = fitting({"a": 5.0, "b": 3.0}, {"x": (4.0, "a b"), "y": (4.0, "a b"), "other": (1.0, "a")})
    assert asked_of.why_not(["x"]) is None
    for _ in range(2):
        error = asked_of.why_not(["x", "y"])
        assert error is not None
        assert error.detail == (
            "y needs 4 MB; of the devices that can run it, b has the most room left, 3 MB: 1 MB too little; "
            "all 2 modules take 8 MB, the devices have 8 MB"
        )
    assert asked_of.why_not(["y"]) is None


def many(count: int, size_mb: float, room_mb: float, devices: int = 12) -> tuple[dict[str, float], Modules]:
    """Equal devices and equal modules."""
    names = {f"d{n:02}": room_mb for n in range(devices)}
    return names, {f"m{n:02}": (size_mb, " ".join(names)) for n in range(count)}


def test_what_counts_prove_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """One module of 100 MB fits on each device of 150 MB, and the sum of all memory does not say so."""
    devices, modules = many(14, 100.0, 150.0)
    asked_of = fitting(devices, modules)
    monkeypatch.setattr(fitting_module, "pack", lambda *_: pytest.fail("packed anew"))
    names = sorted(modules)
    assert asked_of.why_not(names[:12]) is None
    assert asked_of.why_not(names[:13]) is not None
    assert asked_of.why_not(names) is not None
    assert asked_of.why_not(names[1:13]) is None


def test_all_questions_together_pack_anew_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of 60 MB on each device leaves 40 MB: too little for one of 41 MB, which no count proves."""
    devices = {f"d{n:02}": 100.0 for n in range(40)}
    everywhere = " ".join(devices)
    modules: Modules = {f"m{n:03}": (60.0, everywhere) for n in range(40)}
    modules |= {f"x{n:03}": (41.0 + n / 1000, everywhere) for n in range(100)}
    packed: list[object] = []
    monkeypatch.setattr(fitting_module, "pack", lambda *args: packed.append(args))
    monkeypatch.setattr(fitting_module, "_SMALL", 0)
    monkeypatch.setattr(fitting_module, "_MOST_REPACKED", 3 * 41)
    asked_of = fitting(devices, modules)
    held = [name for name in modules if name.startswith("m")]
    assert asked_of.why_not(held) is None
    refused = [asked_of.why_not([*held, name]) for name in modules if name.startswith("x")]
    assert all(refused)
    assert len(packed) == 3


def test_what_was_refused_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    devices, modules = many(14, 100.0, 150.0)
    asked_of, names = fitting(devices, modules), sorted(modules)
    assert asked_of.why_not(names[:12]) is None
    first = asked_of.why_not(names[:13])
    assert first is not None
    monkeypatch.setattr(fitting_module, "make_room", lambda *_, **__: pytest.fail("tried again"))
    for asked in (names[:13], [*names[:12], names[13]], names):
        error = asked_of.why_not(asked)
        assert error is not None
        assert error.detail.startswith(f"{names[13] if names[12] not in asked else names[12]} needs 100 MB")
        assert f"all {len(asked)} modules" in error.detail
