"""What a module is given, checked against what it takes: its configuration and the values of its input ports."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.chat import chat_messages, chat_tools
from s2m3.schemas.wire.values import Kind, Tensor, Value, check_kind

__all__ = ["Config", "chat_port", "port", "read_config", "tensor_port", "text_port", "texts_port", "tools_port"]

#: Characters of one text, texts of one item, and characters of all of them: what is read in 0.2 s.
_MAX_CHARACTERS, _MAX_TEXTS, _MAX_TOGETHER = 10_000, 1_000, 200_000


class Config(BaseModel):
    """A module's configuration table: every key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_C = TypeVar("_C", bound=Config)


def read_config(spec: ModuleSpec, kind: type[_C]) -> _C:
    """Returns the spec's configuration as the class's own type.

    Raises:
        ModuleFailedError: A key is unknown or its value is out of range.
    """
    try:
        return kind.model_validate({name: value for name, value in spec.config.items() if name != ADAPTER})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModuleFailedError(f"module {spec.id}: config.{where}: {first['msg']}") from error


def port(inputs: Mapping[str, Value], name: str, kind: Kind) -> Value:
    """Returns the value of an input port as its kind wants it.

    Raises:
        BadInputError: The value is missing or of another kind.
    """
    if name not in inputs:
        raise BadInputError(f"input {name!r} is missing")
    return check_kind(name, kind, inputs[name])


def texts_port(inputs: Mapping[str, Value], name: str) -> list[str]:
    """Returns the texts of an input port that a tokenizer can read.

    Raises:
        BadInputError: Missing, of another kind, too many, too long, or not UTF-8.
    """
    texts: list[str] = port(inputs, name, "texts")
    if len(texts) > _MAX_TEXTS:
        raise BadInputError(f"{len(texts)} texts; at most {_MAX_TEXTS}")
    if (longest := max(map(len, texts))) > _MAX_CHARACTERS:
        raise BadInputError(f"a text of {longest} characters; at most {_MAX_CHARACTERS}")
    if (together := sum(map(len, texts))) > _MAX_TOGETHER:
        raise BadInputError(f"{len(texts)} texts of {together:,} characters together; at most {_MAX_TOGETHER:,}")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:  # JSON can carry it, UTF-8 cannot
        raise BadInputError("a text holds half of a surrogate pair") from error
    return texts


def text_port(inputs: Mapping[str, Value], name: str) -> str:
    """Returns the one text of an input port; raises as texts_port does."""
    text: str = port(inputs, name, "text")
    return texts_port({name: text}, name)[0]


def chat_port(inputs: Mapping[str, Value], name: str, pictures: int = 0) -> list[dict[str, Any]]:
    """Returns the chat of an input port as messages whose content is a list of blocks (schemas/wire/chat.py).

    Args:
        inputs: The item.
        name: The port; a text is one message of the user.
        pictures: Pictures of the item, each of which a block `{"type": "image"}` stands for.

    Raises:
        BadInputError: Missing, of another kind, too long, not UTF-8, or the pictures do not fit.
    """
    messages = chat_messages(port(inputs, name, "chat"), pictures)
    for message in messages:
        if texts := [block["text"] for block in message["content"] if block["type"] == "text"]:
            texts_port({name: texts}, name)
    return messages


def tools_port(inputs: Mapping[str, Value], name: str, template: str | None) -> list[dict[str, Any]]:
    """Returns the descriptions of functions in the chat of an input port; empty if there are none.

    Args:
        inputs: The item.
        name: The port.
        template: The chat template that is to show them; None if there is none that can.

    Raises:
        BadInputError: One describes no function, or the template shows none.
    """
    tools = chat_tools(port(inputs, name, "chat"))
    if tools and "tools" not in (template or ""):
        raise BadInputError("the model's chat template shows no tools")
    return tools


def tensor_port(inputs: Mapping[str, Value], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Returns the tensor of an input port.

    Args:
        inputs: The item.
        name: The port.
        shape: The length of each dimension; None is any length from 1.

    Raises:
        BadInputError: Missing, not a tensor, not float32, of another shape, or not finite throughout.
    """
    value: Tensor = port(inputs, name, "tensor")
    fits = len(value.shape) == len(shape) and all(
        have == want or (want is None and have > 0) for have, want in zip(value.shape, shape, strict=True)
    )
    if value.dtype.name != "float32" or not fits:
        wanted = " x ".join("n" if n is None else str(n) for n in shape)
        have = " x ".join(map(str, value.shape))
        raise BadInputError(f"input {name!r} takes a float32 tensor of {wanted}, not {value.dtype.name} of {have}")
    if not np.isfinite(value).all():
        raise BadInputError(f"input {name!r} holds numbers that are not finite")
    return value
