"""All errors that a requester can get, as classes with the codes of the protocol (docs/protocol.md)."""

import re
from typing import ClassVar

__all__ = [
    "BadDefinitionError",
    "BadInputError",
    "BrokerUnreachableError",
    "BusyError",
    "ModuleFailedError",
    "NameTakenError",
    "NoCapacityError",
    "NotInstalledError",
    "NotReadyError",
    "RequestTimeoutError",
    "S2M3Error",
    "TooLargeError",
    "UnauthorisedError",
    "UndeliverableError",
    "UnknownTaskError",
    "UnsupportedCheckpointError",
    "error_from_code",
]

#: The default text of a Python object (with its address), which a library's error message may contain.
_ADDRESS = re.compile(r"<([\w.]+)(?: object)? at 0x[0-9a-fA-F]+>")


class S2M3Error(Exception):
    """The base of all errors: the answer to a request that has no result.

    Args:
        detail: One line for people, with the relevant numbers.
        step: The step where the error happened, if any.
        node: The node where the error happened, if any.
    """

    code: ClassVar[str] = "error"
    #: Whether another replica may succeed: if so, the dispatcher retries until the deadline.
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
    """The input cannot be read, or is not one that the task takes."""

    code = "bad_input"


class BadDefinitionError(BadInputError):
    """A model definition or an instance file is invalid. The detail names the file and the line or key."""


class UnsupportedCheckpointError(BadDefinitionError):
    """A checkpoint cannot be served: it has what is not read, or lacks something. Never on the bus: of `task add`."""

    code = "unsupported_checkpoint"


class UndeliverableError(BadInputError):
    """The message was dropped: the broker ended the connection each time it was sent, and did not without it."""


class UnknownTaskError(S2M3Error):
    """There is no task with this name."""

    code = "unknown_task"


class NoCapacityError(S2M3Error):
    """The modules do not fit on the present nodes. The detail names them and the missing memory."""

    code = "no_capacity"


class TooLargeError(S2M3Error):
    """A payload exceeds the broker's or the codec's limit; it was not sent.

    Args:
        size: Size of the payload, bytes.
        limit: The limit, bytes.
    """

    code = "too_large"

    def __init__(
        self, detail: str, *, size: int = 0, limit: int = 0, step: str | None = None, node: str | None = None
    ) -> None:
        super().__init__(detail, step=step, node=node)
        self.size = size
        self.limit = limit


class BusyError(S2M3Error):
    """A queue is full."""

    code = "busy"
    retriable = True


class RequestTimeoutError(S2M3Error):
    """The deadline has passed. The detail names the step, the node and the time waited."""

    code = "timeout"


class ModuleFailedError(S2M3Error):
    """A module could not be loaded, or failed on a valid input."""

    code = "module_failed"
    retriable = True


class NotReadyError(S2M3Error):
    """The module is not served on the node (any more)."""

    code = "not_ready"
    retriable = True


class NotInstalledError(S2M3Error):
    """A package, the weights or a program that is needed is not on this machine. The detail says what brings it."""

    code = "not_installed"


class BrokerUnreachableError(S2M3Error):
    """No broker answers at the address: nothing listens, the name has no address, or what listens speaks no MQTT v5."""

    code = "broker_unreachable"


class NameTakenError(S2M3Error):
    """Another agent runs under the same node name. The detail says how to give a device a name of its own."""

    code = "name_taken"


class UnauthorisedError(S2M3Error):
    """The broker refused the login, or its access list denied an operation."""

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
    """Returns the error for a code from the wire; an unknown code gives an S2M3Error with the code in its text."""
    cls = _BY_CODE.get(code)
    if cls is None:
        return S2M3Error(f"{code}: {detail}", step=step, node=node)
    return cls(detail, step=step, node=node)
