"""The options of a step that generates text token by token (Options), and the text that it streams (Piece)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, field_validator

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.protocol import Since, newer_fields
from s2m3.schemas.wire.json_format import check_json_format

__all__ = ["NO_OPTIONS", "Options", "Piece", "common_length", "known_options", "read_options"]

_MAX_TOKENS = 32_768
_MAX_STOPS, _LONGEST_STOP = 8, 100
#: The largest integer that every JSON reader represents exactly.
_MAX_SEED = 2**53 - 1
#: One stop text or several, as `_one_or_several` accepts.
_STOP = {"type": "string", "minLength": 1, "maxLength": _LONGEST_STOP}
_STOP_SCHEMA = {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": _MAX_STOPS}]}


class Options(BaseModel):
    """The generation options of one request; for None the module's default applies."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True, defer_build=True)

    max_tokens: int | None = Field(default=None, ge=1, le=_MAX_TOKENS)
    #: stop texts: the generated text ends before the first occurrence of any
    stop: Annotated[tuple[str, ...], WithJsonSchema(_STOP_SCHEMA)] = ()
    #: 0 is greedy decoding; above 0, tokens are sampled, less likely ones more often with a higher temperature. None is
    #: what the checkpoint's generation_config.json says, greedy where it says nothing
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    #: seed of the sampling: the same seed gives the same text. Without one, the requester sets one per request, so that
    #: all attempts generate the same text
    seed: int | None = Field(default=None, ge=0, le=_MAX_SEED)
    #: whether a transcript says when its segments were spoken, for models that can (Whisper)
    timestamps: Annotated[bool, Since(1)] = False
    #: the text is JSON that follows this schema; `json`: any object. A reader that does not know it refuses it
    format: Annotated[Literal["json"] | dict[str, Any] | None, Since(1, needed=True)] = None
    #: of the draws, before the checkpoint's own: among so many of the likeliest tokens
    top_k: Annotated[int | None, Field(ge=1, le=1000), Since(1)] = None
    #: among the likeliest that together have this probability
    top_p: Annotated[float | None, Field(gt=0.0, le=1.0), Since(1)] = None
    #: among those at least so probable as a share of the likeliest
    min_p: Annotated[float | None, Field(ge=0.0, le=1.0), Since(1)] = None
    #: seconds that a request waits for a node that sleeps; of any task, kept by the requester and told no node
    wait_s: Annotated[float | None, Field(ge=0.0, le=86_400.0), Since(1)] = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, stop: object) -> object:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list | tuple) or len(stops) > _MAX_STOPS:
            raise ValueError(f"at most {_MAX_STOPS} texts")
        if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in stops):
            raise ValueError(f"texts of 1 to {_LONGEST_STOP} characters")
        return tuple(stops)

    @field_validator("format")
    @classmethod
    def _bounded(cls, form: object) -> object:
        check_json_format(form)
        return form

    @property
    def draws(self) -> bool:
        """Whether the request wants tokens to be sampled (temperature above 0)."""
        return self.temperature is not None and self.temperature > 0

    def as_dict(self) -> dict[str, Any]:
        """Returns the wire form, without options that have their default value."""
        return self.model_dump(exclude_defaults=True)

    def seeded(self, seed: int) -> Self:
        """Returns the options with the seed, if they sample and have none."""
        return self.model_copy(update={"seed": seed}) if self.draws and self.seed is None else self

    def for_reader(self, protocol: int) -> Self:
        """Returns the options without those that an agent of a protocol number would refuse.

        A format stays: an agent that refuses it is better than one that answers without it.
        """
        newer = newer_fields(self, protocol)
        defaults = {name: type(self).model_fields[name].default for name in newer if name != "format"}
        return self.model_copy(update=defaults) if newer else self


NO_OPTIONS = Options()


def known_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the options that this release knows: unknown ones from the bus are ignored."""
    return {name: value for name, value in (given or {}).items() if name in Options.model_fields}


def read_options(given: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None = None) -> Options:
    """Returns validated options; those not given are taken from the defaults.

    Raises:
        BadInputError: An unknown key or an invalid value; the detail names the key.
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
    """Text that a step has generated since the previous piece.

    The reader replaces everything after offset `at` with `text`. Normally a piece begins where the text so far ends. A
    smaller offset corrects the text: the next token changed the spelling of a word, or a new attempt generates another
    text.
    """

    request: bytes
    step: str
    attempt: int
    #: sequence number, from 0 within an attempt
    seq: int
    #: offset in the whole text, characters
    at: int
    text: str


def common_length(one: str, other: str) -> int:
    """Returns the length of the longest common prefix of two texts."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(i for i in range(shorter) if one[i] != other[i])
