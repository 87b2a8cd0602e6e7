"""Items: complete work on its way through an agent, from the queue to its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from s2m3.agents.serving.fair_queue import Flow
from s2m3.agents.serving.payloads import payload_bytes
from s2m3.schemas.wire.work import Work

__all__ = ["NOT_PREPARED", "Item", "prepared_bytes"]

#: The value of `prepared` until the module has prepared the inputs of an item.
NOT_PREPARED: Any = object()


@dataclass(slots=True, eq=False)
class Item:
    """Complete work, with the times of its arrival and deadline (monotonic seconds)."""

    work: Work
    arrived: float
    deadline: float
    #: whether the result is not needed any more
    dropped: bool = False
    #: bytes of the inputs
    nbytes: int = 0
    #: the value that the module's `prepare` returned
    prepared: Any = NOT_PREPARED
    #: bytes of `prepared`
    prepared_bytes: int = 0
    #: the hash of the inputs (once_per_content.py); None if the module is not repeatable
    content: bytes | None = None
    #: items of equal inputs, which are answered with the outputs of this one
    followers: list["Item"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nbytes = payload_bytes(self.work.inputs)

    def take_over(self, work: Work, deadline: float) -> None:
        """Replaces the work by a newer attempt of the same work."""
        self.work, self.deadline, self.nbytes = work, deadline, payload_bytes(work.inputs)

    def set_prepared(self, prepared: Any) -> None:
        """Sets the value that the module's `prepare` returned."""
        self.prepared, self.prepared_bytes = prepared, prepared_bytes(prepared)

    @property
    def held_bytes(self) -> int:
        """Bytes of the inputs, of the prepared value, and of the inputs of followers."""
        return self.nbytes + self.prepared_bytes + sum(follower.nbytes for follower in self.followers)

    @property
    def key(self) -> tuple[bytes, str]:
        """Request and step, which all attempts of the work have in common."""
        return self.work.request, self.work.step

    @property
    def flow(self) -> Flow:
        """Task and requester, which share the worker's time with others."""
        return self.work.task, self.work.reply_to


def prepared_bytes(value: Any) -> int:
    """Returns the bytes of the tensors and arrays in what a module prepared; files and texts are not counted again."""
    match value:
        case Mapping():
            return sum(map(prepared_bytes, value.values()))
        case list() | tuple():
            return sum(map(prepared_bytes, value))
    if isinstance(nbytes := getattr(value, "nbytes", None), int):
        return nbytes
    if is_dataclass(value) and not isinstance(value, type):
        return sum(prepared_bytes(getattr(value, one.name)) for one in fields(value))
    return 0
