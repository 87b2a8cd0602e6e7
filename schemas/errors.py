"""Every error that a caller can be told, as a class with a code. The codes are the protocol's (docs/protocol.md)."""

import re
from typing import ClassVar

__all__ = [
    "BadDefinitionError",
    "BadInputError",
    "BusyError",
    "ModuleFailedError",
    "NoCapacityError",
    "NotInstalledError",
    "NotReadyError",
    "RequestTimeoutError",
    "S2M3Error",
    "TooLargeError",
    "UnauthorisedError",
    "UnknownTaskError",
    "error_from_code",
]

#: What Python prints of an object without a text of its own; a library's error may hold one.
_ADDRESS = re.compile(r"<([\w.]+)(?: object)? at 0x[0-9a-fA-F]+>")


class S2M3Error(Exception):
    """An answer that is not a result.

    Args:
        detail: One line for a person, with the numbers that matter.
        step: The step it happened at, where one is to blame.
        node: The node it happened on, where one is to blame.
    """

    code: ClassVar[str] = "error"
    #: Another replica may succeed where this one did not: the dispatcher tries again while the deadline lasts.
    retriable: ClassVar[bool] = False

    def __init__(self, detail: str, *, step: str | None = None, node: str | None = None) -> None:
        detail = _ADDRESS.sub(r"\1", detail)
        super().__init__(detail)
        self.detail = detail
        self.step = step
        self.node = node

    def __str__(self) -> str:
        where = ", ".join(f"{k} {v}" for k, v in (("step", self.step), ("node", self.node)) if v)
        return f"{self.code}: {self.detail}" + (f" ({where})" if where else "")

    def as_dict(self) -> dict[str, str]:
        """Returns the wire form: code, detail and, where known, step and node."""
        known = {"code": self.code, "detail": self.detail, "step": self.step, "node": self.node}
        return {k: v for k, v in known.items() if v is not None}


class BadInputError(S2M3Error):
    """What was sent cannot be read, or is not what the task takes."""

    code = "bad_input"


class BadDefinitionError(BadInputError):
    """A model definition or an instance file is wrong. The detail names the file and the line or key."""


class UnknownTaskError(S2M3Error):
    """Nobody has added a task of this name."""

    code = "unknown_task"


class NoCapacityError(S2M3Error):
    """The modules do not fit on the nodes there are. The detail names them and by how much."""

    code = "no_capacity"


class TooLargeError(S2M3Error):
    """A payload is over the broker's or the codec's limit; it was not sent.

    Args:
        size: Bytes of the payload.
        limit: Bytes allowed.
    """

    code = "too_large"

    def __init__(
        self, detail: str, *, size: int = 0, limit: int = 0, step: str | None = None, node: str | None = None
    ) -> None:
        super().__init__(detail, step=step, node=node)
        self.size = size
        self.limit = limit


class BusyError(S2M3Error):
    """A queue is at its bound."""

    code = "busy"
    retriable = True


class RequestTimeoutError(S2M3Error):
    """The deadline passed. The detail names the step, the node and how long was waited."""

    code = "timeout"


class ModuleFailedError(S2M3Error):
    """A module could not be loaded, or failed on an input that was fine."""

    code = "module_failed"
    retriable = True


class NotReadyError(S2M3Error):
    """The module is not (or no longer) served there."""

    code = "not_ready"
    retriable = True


class NotInstalledError(S2M3Error):
    """A package, the weights or a program that is needed is not on this machine. The detail says what brings it."""

    code = "not_installed"


class UnauthorisedError(S2M3Error):
    """The broker refused the login or the operation."""

    code = "unauthorised"


_BY_CODE: dict[str, type[S2M3Error]] = {
    cls.code: cls
    for cls in (
        BadInputError,
        UnknownTaskError,
        NoCapacityError,
        TooLargeError,
        BusyError,
        RequestTimeoutError,
        ModuleFailedError,
        NotReadyError,
        UnauthorisedError,
    )
}


def error_from_code(code: str, detail: str, *, step: str | None = None, node: str | None = None) -> S2M3Error:
    """Returns the error class of a code off the wire; an unknown code gives a plain S2M3Error that keeps the text."""
    cls = _BY_CODE.get(code)
    if cls is None:
        return S2M3Error(f"{code}: {detail}", step=step, node=node)
    return cls(detail, step=step, node=node)
