"""How a step that writes text token by token is to write (Options), and what it sends while it writes (Piece)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.protocol import newer_fields

__all__ = ["NO_OPTIONS", "Options", "Piece", "common_length", "known_options", "read_options"]

_MAX_TOKENS = 32_768
_MAX_STOPS, _LONGEST_STOP = 8, 100
#: 53 bits: a whole number that every JSON reader keeps
_MAX_SEED = 2**53 - 1
#: `_one_or_several` takes one text, or several
_STOP = {"type": "string", "minLength": 1, "maxLength": _LONGEST_STOP}
_STOP_SCHEMA = {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": _MAX_STOPS}]}


class Options(BaseModel):
    """Settings of one request's generation. Greedy where no temperature is given; what is None is the module's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    max_tokens: int | None = Field(default=None, ge=1, le=_MAX_TOKENS)
    #: the text ends before the first of these
    stop: Annotated[tuple[str, ...], WithJsonSchema(_STOP_SCHEMA)] = ()
    #: 0 takes the likeliest token; above it, tokens are drawn, the less likely ones more often the higher it is
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    #: of the draws: the same seed gives the same text. Where there is none the requester fills one in, once per
    #: request, so that a second attempt writes the same
    seed: int | None = Field(default=None, ge=0, le=_MAX_SEED)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, stop: object) -> object:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list | tuple) or len(stops) > _MAX_STOPS:
            raise ValueError(f"at most {_MAX_STOPS} texts")
        if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in stops):
            raise ValueError(f"texts of 1 to {_LONGEST_STOP} characters")
        return tuple(stops)

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, not the likeliest taken."""
        return self.temperature > 0

    def as_dict(self) -> dict[str, Any]:
        """Returns the wire form: what differs from the defaults."""
        return self.model_dump(exclude_defaults=True)

    def seeded(self, seed: int) -> Self:
        """Returns the same with a seed where one is needed and none was given."""
        return self.model_copy(update={"seed": seed}) if self.draws and self.seed is None else self

    def for_reader(self, protocol: int) -> Self:
        """Returns the same without the options that an agent of that protocol number would refuse."""
        newer = newer_fields(self, protocol)
        defaults = {name: type(self).model_fields[name].default for name in newer}
        return self.model_copy(update=defaults) if newer else self


NO_OPTIONS = Options()


def known_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns those of the options that this release knows: off the bus, the others are passed over."""
    return {name: value for name, value in (given or {}).items() if name in Options.model_fields}


def read_options(given: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None = None) -> Options:
    """Returns checked options, each from what was given, else from the defaults.

    Raises:
        BadInputError: An unknown key or an impossible value; the detail names the key.
    """
    try:
        return Options.model_validate({**(defaults or {}), **(given or {})})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise BadInputError(f"options has an unknown key {key!r}: {', '.join(Options.model_fields)}") from error
        raise BadInputError(f"options.{key}: {first['msg'].removeprefix('Value error, ')}") from error


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that a request's step has written since its last piece.

    Whoever shows it replaces what is behind `at` with `text`. Pieces in order begin where the text so far ends; one
    that begins before it takes back what is no longer true (a word whose spelling the next token changed, or another
    attempt that writes something else).
    """

    request: bytes
    step: str
    attempt: int
    #: 0, 1, 2 … within an attempt
    seq: int
    #: where it begins, in characters of the whole text
    at: int
    text: str


def common_length(one: str, other: str) -> int:
    """Returns how many characters two texts begin with in common."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(i for i in range(shorter) if one[i] != other[i])
