"""The base of all JSON documents on the bus."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from s2m3.schemas.protocol import PROTOCOL, Since, newer_fields

__all__ = ["Document", "Protocol"]

#: The protocol number of the document's sender. Absent means 0: a release from before the number existed.
Protocol = Annotated[int, Field(ge=0), Since(1)]


class Document(BaseModel):
    """A JSON document. Unknown keys are ignored, so that an older reader understands a newer sender."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True, defer_build=True)

    def encode(self, reader: int = PROTOCOL) -> bytes:
        """Returns the JSON without the fields that a reader of a protocol number does not know.

        Args:
            reader: The reader's protocol number.
        """
        newer = newer_fields(self, reader)
        return self.model_dump_json(exclude_none=True, by_alias=True, exclude=newer or None).encode()
