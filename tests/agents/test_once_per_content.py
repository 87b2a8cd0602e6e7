"""Which inputs count as equal, and which outputs are remembered by them: within a bound, and never changed later."""

import itertools
from typing import Any

import numpy as np
import pytest

from s2m3.agents.serving.once_per_content import RememberedOutputs, content_of_inputs

ONE, OTHER = b"1" * 32, b"2" * 32
TENSOR = np.arange(6, dtype=np.float32).reshape(2, 3)
#: Inputs of which no two are equal, though many look alike.
DIFFERENT: list[Any] = [
    b"ab", "ab", ["ab"], [b"ab"], ["a", "b"], [["a"], "b"], [["a", "b"]], {"ab": "c"}, {"a": "bc"},
    {"b": "bc"}, {"a": "b", "c": "d"}, {"a": {"b": "c"}}, {}, [], "", b"", None, [None], True, False, 0, 1, 1.0, "1",
    TENSOR, TENSOR.reshape(3, 2), TENSOR.astype(np.float64), TENSOR + 1, TENSOR[:, :2], TENSOR.tobytes(),
    b"1", -1, 10, [1, 0], "b2:ab", "s1:a", np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32), "ä", "\ud83d",
]  # fmt: skip


def content(value: Any) -> bytes:
    found = content_of_inputs({"x": value})
    assert found is not None
    return found


def test_inputs_that_differ_in_anything_have_different_contents() -> None:
    found = [content(value) for value in DIFFERENT]
    same = [pair for pair in itertools.combinations(range(len(found)), 2) if found[pair[0]] == found[pair[1]]]
    assert [(DIFFERENT[one], DIFFERENT[other]) for one, other in same] == []
    assert {len(one) for one in found} == {32}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": "x"}, {"b": "x", "a": 1}),
        (["a", 1], ("a", 1)),
        (TENSOR, TENSOR.copy()),
        (TENSOR, np.asfortranarray(TENSOR)),
        (TENSOR, np.repeat(TENSOR, 2, axis=1)[:, ::2]),
    ],
    ids=["order of names", "list and tuple", "copy", "columns first", "with gaps"],
)
def test_equal_values_have_one_content_however_they_lie_in_memory(one: Any, other: Any) -> None:
    assert content(one) == content(other)


def test_a_value_of_no_known_type_has_no_content() -> None:
    assert content_of_inputs({"x": "a", "y": object()}) is None
    assert content_of_inputs({"x": [1, {"deep": {1, 2}}]}) is None


def test_outputs_are_found_by_module_and_content_if_all_that_are_wanted_are_there() -> None:
    remembered = RememberedOutputs(10_000)
    remembered.keep("m", ONE, {"label": "a cat", "score": 0.5})
    assert remembered.find("m", ONE, frozenset({"label"})) == {"label": "a cat", "score": 0.5}
    assert remembered.find("m", ONE, frozenset({"label", "score"})) is not None
    assert remembered.find("m", ONE, frozenset({"label", "boxes"})) is None
    assert remembered.find("m", OTHER, frozenset({"label"})) is None
    assert remembered.find("n", ONE, frozenset({"label"})) is None


def test_outputs_of_the_same_inputs_are_kept_together_the_later_values_first() -> None:
    remembered = RememberedOutputs(10_000)
    remembered.keep("m", ONE, {"label": "a", "score": 0.1})
    remembered.keep("m", ONE, {"boxes": [], "score": 0.2})
    assert remembered.find("m", ONE, frozenset({"label", "boxes"})) == {"label": "a", "boxes": [], "score": 0.2}


def test_the_outputs_of_one_module_are_forgotten_and_no_other() -> None:
    remembered = RememberedOutputs(10_000)
    for module in ("m", "n"):
        for key in (ONE, OTHER):
            remembered.keep(module, key, {"label": module})
    remembered.forget("m")
    assert [remembered.find("m", key, frozenset()) for key in (ONE, OTHER)] == [None, None]
    assert [remembered.find("n", key, frozenset()) for key in (ONE, OTHER)] == [{"label": "n"}] * 2
    remembered.forget("unknown")


def test_what_is_remembered_counts_with_its_entry_and_the_least_recently_used_makes_room() -> None:
    remembered = RememberedOutputs(1_520)
    remembered.keep("m", ONE, {"text": "x" * 10})
    assert remembered.nbytes == 510
    remembered.keep("m", OTHER, {"text": "x" * 10})
    remembered.find("m", ONE, frozenset())
    remembered.keep("m", b"3" * 32, {"text": "x" * 10})
    assert remembered.nbytes == 1_020
    assert remembered.find("m", OTHER, frozenset()) is None
    assert remembered.find("m", ONE, frozenset()) is not None


@pytest.mark.parametrize(("size", "kept"), [(511_500, True), (511_501, False)])
def test_the_outputs_of_one_item_have_a_bound(*, size: int, kept: bool) -> None:
    remembered = RememberedOutputs(10_000_000)
    remembered.keep("m", ONE, {"text": "x" * size})
    assert (remembered.find("m", ONE, frozenset()) is not None) is kept


@pytest.mark.parametrize(("size", "kept"), [(500, True), (501, False)])
def test_one_item_is_no_larger_than_all_together_may_be(*, size: int, kept: bool) -> None:
    remembered = RememberedOutputs(1_000)
    remembered.keep("m", ONE, {"text": "x" * size})
    assert (remembered.find("m", ONE, frozenset()) is not None) is kept


@pytest.mark.parametrize("most", [0, -5])
def test_nothing_is_remembered_where_there_is_no_room(most: int) -> None:
    remembered = RememberedOutputs(most)
    remembered.keep("m", ONE, {"text": ""})
    assert (remembered.find("m", ONE, frozenset()), remembered.nbytes) == (None, 0)


def test_tensors_are_remembered_at_any_depth_as_they_were_and_cannot_be_changed() -> None:
    remembered = RememberedOutputs(1_000_000)
    large = np.zeros((100, 4), np.float32)
    given: dict[str, Any] = {"states": large[:2], "parts": [{"inner": large[2:3]}], "own": TENSOR.copy(), "text": "a"}
    remembered.keep("m", ONE, given)
    large += 1
    given["own"] += 1
    found = remembered.find("m", ONE, frozenset())
    assert found is not None
    tensors = [found["states"], found["parts"][0]["inner"], found["own"]]
    assert [float(tensor.sum()) for tensor in tensors] == [0.0, 0.0, 15.0]
    assert [tensor.flags.writeable for tensor in tensors] == [False] * 3
    assert [tensor.base is None for tensor in tensors] == [True] * 3
    assert found["text"] == "a"


def test_a_tensor_that_nobody_can_change_is_not_copied() -> None:
    remembered = RememberedOutputs(1_000_000)
    fixed = TENSOR.copy()
    fixed.flags.writeable = False
    remembered.keep("m", ONE, {"x": fixed})
    found = remembered.find("m", ONE, frozenset())
    assert found is not None
    assert found["x"] is fixed
