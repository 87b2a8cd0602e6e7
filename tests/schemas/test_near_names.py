"""Names that do not exist: the text says which do, the nearest first, and stays short on a site of thousands."""

import pytest

from s2m3.schemas.near_names import among, no_such

TASKS = ["vqa", "doorbell", "retrieval", "spoken-retrieval"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("retreival", "retrieval, spoken-retrieval, doorbell, vqa"),
        ("DoorBell", "doorbell, retrieval, spoken-retrieval, vqa"),
        ("x", "doorbell, retrieval, spoken-retrieval, vqa"),
    ],
)
def test_the_nearest_names_come_first_and_the_others_in_order(name: str, shown: str) -> None:
    assert no_such("task", name, TASKS) == f"no task {name!r}; there are: {shown}"


def test_where_there_are_none_it_says_so() -> None:
    assert no_such("node", "pi5", []) == "no node 'pi5'; there are: none"
    assert no_such("node", None, ["pi5"]) == "no node; there are: pi5"


def test_of_thousands_a_dozen_are_named_and_the_others_counted() -> None:
    known = [f"cam-{number}" for number in range(5_000)]
    text = among(known, "cam-4711")
    assert text.startswith("cam-4711, ")
    assert text.endswith(" and 4988 more")
    assert len(text.split(", ")) == 12
    assert among(known[:12]).count(", ") == 11


def test_a_name_of_any_length_is_cut() -> None:
    assert len(no_such("task", "a" * 1_000_000, TASKS)) < 200
