"""The dtypes that a module's weights may be held in, and what part of float32's memory each takes."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.protocol import ClosedList

__all__ = ["INT8_MATRIX", "SHARES", "Dtype", "DtypeName", "read_dtype", "share_of"]

Dtype = Annotated[Literal["float32", "bfloat16", "float16", "int8", "unknown"], ClosedList()]
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Part of its float32 bytes that a matrix takes in int8, with a scale for each output.
INT8_MATRIX = 0.26
#: Part of the memory of float32: an estimate until a module was loaded. int8: embeddings, norms and scales stay.
SHARES: dict[Dtype, float] = {"float32": 1.0, "bfloat16": 0.5, "float16": 0.5, "int8": 0.3}


def share_of(dtype: Dtype) -> float:
    """Returns the part of float32's memory that weights take in a dtype; of an unknown one, the whole of it."""
    return SHARES.get(dtype, 1.0)


def read_dtype(given: str) -> Dtype:
    """Returns a dtype by its long or short name.

    Raises:
        BadInputError: There is none of that name.
    """
    known = next((name for name in SHARES if name == _long(given)), None)
    if known is None:
        raise BadInputError(f"the dtype is one of {', '.join(SHARES)}, not {given!r}")
    return known


def _long(given: object) -> object:
    return _SHORT.get(given, given) if isinstance(given, str) else given


#: As people write it: fp32, bf16 and fp16 too.
DtypeName = Annotated[Dtype, BeforeValidator(_long)]
