"""Tensors on the wire and what kind of value an input takes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Kind, check_kind, is_packed_tensor, pack_tensor, unpack_tensor

DTYPES = ("float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "float64")
TENSORS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


@given(TENSORS)
def test_a_tensor_comes_back_as_it_was(array: Any) -> None:
    back = unpack_tensor(pack_tensor(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


def test_a_view_that_is_not_contiguous_travels_row_by_row() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]
    assert np.array_equal(unpack_tensor(pack_tensor(array)), array)


def test_a_big_endian_tensor_travels_little_endian() -> None:
    packed = pack_tensor(np.array([1, 256], dtype=">i4"))
    assert packed == {"dtype": "int32", "shape": [2], "bytes": b"\x01\0\0\0\0\x01\0\0"}


def test_what_comes_in_is_read_only_and_not_copied() -> None:
    back = unpack_tensor(pack_tensor(np.zeros(4, np.float32)))
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "object", "datetime64[s]", "U4", "V8"])
def test_other_dtypes_do_not_travel(dtype: str) -> None:
    with pytest.raises(BadInputError, match="do not travel"):
        pack_tensor(np.zeros(2, dtype=dtype))
    with pytest.raises(BadInputError, match="is not one of"):
        unpack_tensor({"dtype": dtype, "shape": [2], "bytes": b"\0" * 16})


def test_a_truncated_tensor_is_refused() -> None:
    packed = pack_tensor(np.zeros((2, 3), np.float32))
    with pytest.raises(BadInputError, match="is 24 bytes, not 23"):
        unpack_tensor({**packed, "bytes": packed["bytes"][:-1]})


@pytest.mark.parametrize(
    "shape",
    [
        [-1],
        [2, -3],
        [1.0],
        [True],
        ["2"],
        [None],
        "2",
        {"0": 2},
        None,
        6,
        [1] * 9,
        [2**62, 2**62, 2**62],
        [2**64, 1],
        [[2]],
    ],
)
def test_a_shape_that_is_no_short_list_of_sizes_or_that_overflows_is_refused(shape: Any) -> None:
    with pytest.raises(BadInputError):
        unpack_tensor({"dtype": "float32", "shape": shape, "bytes": b"\0" * 8})


def test_a_huge_shape_with_a_zero_in_it_holds_nothing_and_costs_nothing() -> None:
    with pytest.raises(BadInputError):
        unpack_tensor({"dtype": "float32", "shape": [2**40, 2**40, 0], "bytes": b""})


@pytest.mark.parametrize("dtype", [None, 5, b"float32", ["float32"], "Float32"])
def test_a_dtype_that_is_no_known_name_is_refused(dtype: Any) -> None:
    with pytest.raises(BadInputError):
        unpack_tensor({"dtype": dtype, "shape": [0], "bytes": b""})


def test_only_a_map_of_exactly_the_three_keys_is_a_tensor() -> None:
    packed = pack_tensor(np.zeros(1, np.int8))
    assert is_packed_tensor(packed)
    assert not is_packed_tensor({**packed, "more": 1})
    assert not is_packed_tensor({**packed, "bytes": "text"})
    assert not is_packed_tensor([packed])


BOX = {"label": "cat", "score": 0.9, "box": [1.5, 2, 30, 40.25]}


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        ("image", b"jpeg", b"jpeg"),
        ("image", [b"jpeg"], b"jpeg"),
        ("images", b"jpeg", [b"jpeg"]),
        ("images", [b"a", b"b"], [b"a", b"b"]),
        ("audio", b"wav", b"wav"),
        ("text", "hello", "hello"),
        ("text", ["hello"], "hello"),
        ("texts", "hello", ["hello"]),
        ("texts", ["a", "b"], ["a", "b"]),
        ("number", 3, 3),
        ("number", 2.5, 2.5),
        ("data", {"any": [1, None]}, {"any": [1, None]}),
        ("data", None, None),
        ("boxes", [], []),
        ("boxes", [BOX], [BOX]),
    ],
)
def test_a_kind_takes_its_values_and_widens_one_to_many(kind: Kind, value: Any, taken: Any) -> None:
    assert check_kind("x", kind, value) == taken


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("image", "text"),
        ("image", [b"a", b"b"]),
        ("images", []),
        ("images", [b"a", "b"]),
        ("audio", 5),
        ("text", b"bytes"),
        ("text", ["a", "b"]),
        ("texts", []),
        ("texts", ["a", None]),
        ("tensor", [1.0]),
        ("number", True),
        ("number", "5"),
        ("boxes", BOX),
        ("boxes", [{**BOX, "label": 3}]),
        ("boxes", [{**BOX, "score": "0.9"}]),
        ("boxes", [{**BOX, "box": [1, 2, 3]}]),
        ("boxes", [{**BOX, "box": [1, 2, 3, None]}]),
        ("boxes", [{"box": [1, 2, 3, 4]}]),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(kind: Kind, value: Any) -> None:
    with pytest.raises(BadInputError, match="input 'x' takes"):
        check_kind("x", kind, value)
