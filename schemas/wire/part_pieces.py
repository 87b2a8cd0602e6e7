"""Pieces of parts as bytes: msgpack on part/piece/{holder}/{asker}, without v5 properties."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.parts import PieceRequest, Sha256
from s2m3.schemas.wire.packing import pack, unpack

__all__ = ["PartPiece", "decode_part_piece", "encode_part_piece"]


class PartPiece(BaseModel):
    """The answer to a PieceRequest: the bytes, or why there are none."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    part: Sha256
    file: int = Field(ge=0)
    piece: int = Field(ge=0)
    hashes: bool = False
    data: bytes = b""
    #: `busy`: ask again; `gone`: the holder has it no more, or the file has changed; another word is taken for `gone`
    refused: str | None = None


def encode_part_piece(request: PieceRequest, data: bytes = b"", refused: str | None = None) -> bytes:
    """Returns the answer to a request as bytes."""
    return pack({**request.model_dump(), "data": data, "refused": refused})


def decode_part_piece(payload: bytes) -> PartPiece:
    """Returns the answer that bytes are.

    Raises:
        BadInputError: They are none.
    """
    try:
        return PartPiece.model_validate(unpack(payload), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadInputError(f"a piece of a part: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
