"""The greedy places by need, and finds room whenever there is some."""

import pytest

from s2m3.planner.solving.greedy import greedy, sorted_by_need
from s2m3.planner.solving.problem import Problem
from s2m3.schemas.instance import Instance, parse_instance


def _bins(rooms: list[float], sizes: list[float], able: dict[int, list[int]] | None = None) -> Instance:
    """Devices with room, modules with sizes; every device runs every module, unless `able` says otherwise."""
    return parse_instance(
        {
            "devices": [{"id": f"d{d}", "memory_mb": room} for d, room in enumerate(rooms)],
            "modules": [
                {
                    "id": f"m{m}",
                    "memory_mb": size,
                    "seconds": {f"d{d}": 1.0 + d for d in (able or {}).get(m, range(len(rooms)))},
                }
                for m, size in enumerate(sizes)
            ],
            "tasks": [{"id": f"t{m}", "steps": [{"id": "s", "module": f"m{m}"}]} for m in range(len(sizes))],
        }
    )


@pytest.mark.parametrize(
    ("rooms", "sizes", "able"),
    [
        ([4, 2], [2, 4], None),  # the faster device is wanted first by the one that fits elsewhere
        ([10, 10], [6, 5, 5, 4], None),
        ([5, 5], [5, 3, 2], {2: [1], 1: [1]}),  # the largest has to leave the device that the others need
        ([9, 9, 9], [6, 6, 6, 3, 3, 3], {3: [0], 4: [0, 1], 5: [1, 2]}),
        ([10, 7], [4, 4, 3, 3, 3], None),  # exactly full
        ([0.3, 1.0], [0.1, 0.2, 1.0], None),  # 0.1 + 0.2 is a little over 0.3 in floats
    ],
)
def test_it_finds_room_where_there_is_some(
    rooms: list[float], sizes: list[float], able: dict[int, list[int]] | None
) -> None:
    instance = _bins(rooms, sizes, able)
    for key in ("memory", "compute"):
        placement = greedy(instance, key=key)
        for d, room in enumerate(rooms):
            assert sum(size for m, size in enumerate(sizes) if f"d{d}" in placement[f"m{m}"]) <= room + 1e-6


def test_need_is_memory_or_compute() -> None:
    instance = parse_instance(
        {
            "devices": [{"id": "d", "memory_mb": 100}],
            "modules": [
                {"id": "large", "memory_mb": 50, "seconds": {"d": 1}},
                {"id": "slow", "memory_mb": 5, "seconds": {"d": 9}},
            ],
            "tasks": [],
        }
    )
    problem = Problem(instance)
    assert sorted_by_need(problem, "memory") == [0, 1]
    assert sorted_by_need(problem, "compute") == [1, 0]


def test_a_module_goes_where_its_tasks_complete_earliest_given_what_is_held() -> None:
    instance = parse_instance(
        {
            "devices": [{"id": "fast", "memory_mb": 9}, {"id": "slow", "memory_mb": 9}],
            "modules": [
                {"id": "image", "memory_mb": 2, "seconds": {"fast": 1.0, "slow": 3.0}},
                {"id": "text", "memory_mb": 1, "seconds": {"fast": 0.7, "slow": 0.9}},
                {"id": "head", "memory_mb": 0, "seconds": {"fast": 0.0, "slow": 0.0}},
            ],
            "tasks": [
                {
                    "id": "t",
                    "steps": [
                        {"id": "image", "module": "image"},
                        {"id": "text", "module": "text"},
                        {"id": "head", "module": "head", "after": ["image", "text"]},
                    ],
                }
            ],
        }
    )
    placement = greedy(instance)
    assert placement["image"] == ["fast"]
    assert placement["text"] == ["slow"], "beside the image on the fast device it would wait for it"
