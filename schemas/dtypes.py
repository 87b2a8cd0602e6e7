"""The dtypes of weights in memory, and the memory of each relative to float32."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.protocol import ClosedList

__all__ = ["INT8_MATRIX", "SHARES", "Dtype", "DtypeName", "read_dtype", "share_of"]

Dtype = Annotated[Literal["float32", "bfloat16", "float16", "int8", "unknown"], ClosedList()]
_SHORT_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Size of an int8 matrix with one scale per output, relative to float32.
INT8_MATRIX = 0.26
#: Estimated memory of a module relative to float32, until it is measured. int8 keeps embeddings and norms in float32.
SHARES: dict[Dtype, float] = {"float32": 1.0, "bfloat16": 0.5, "float16": 0.5, "int8": 0.3}


def share_of(dtype: Dtype) -> float:
    """Returns the memory of weights in a dtype, relative to float32; 1 for an unknown dtype."""
    return SHARES.get(dtype, 1.0)


def read_dtype(given: str) -> Dtype:
    """Returns a dtype by its long or short name.

    Raises:
        BadInputError: No dtype has this name.
    """
    known = next((name for name in SHARES if name == _long_name(given)), None)
    if known is None:
        raise BadInputError(f"the dtype is one of {', '.join(SHARES)}, not {given!r}")
    return known


def _long_name(given: object) -> object:
    return _SHORT_NAMES.get(given, given) if isinstance(given, str) else given


#: A dtype that may be given by its short name: fp32, bf16, fp16.
DtypeName = Annotated[Dtype, BeforeValidator(_long_name)]
