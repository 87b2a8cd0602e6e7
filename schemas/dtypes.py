"""The dtypes that a module's weights may be held in, and what part of float32's memory each takes."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator

__all__ = ["SHARES", "Dtype", "DtypeName"]

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Part of the memory of float32: an estimate until a module was loaded. int8: embeddings, norms and scales stay.
SHARES: dict[Dtype, float] = dict(zip(get_args(Dtype), (1.0, 0.5, 0.5, 0.3), strict=True))


def _long(given: object) -> object:
    return _SHORT.get(given, given) if isinstance(given, str) else given


#: As people write it: fp32, bf16 and fp16 too.
DtypeName = Annotated[Dtype, BeforeValidator(_long)]
