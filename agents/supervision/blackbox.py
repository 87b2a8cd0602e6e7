"""A crash record in shared memory: the agent notes its current work, and its supervisor reads it after a crash.

The memory is shared through fork, so that writing needs no system call. It needs no lock: each slot has one writer, and
the supervisor reads slots only after the agent's process has ended. The supervisor imports this file, so it imports
nothing that takes memory.
"""

import mmap
from collections.abc import Iterable

from s2m3.schemas.request_ids import REQUEST_ID_BYTES

#: Type checkers take it as typing's, whose import would cost the supervisor a megabyte.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from s2m3.agents.supervision.restart_policy import Mark

__all__ = ["LOADING", "LOOP", "PREPARING", "WORKER", "Blackbox"]

#: Slots, one per writing thread: the runner's, the event loop's (light modules), the loader's, those that prepare.
WORKER, LOOP, LOADING, *PREPARING = range(3 + 16)
_SLOTS = 3 + len(PREPARING)
_NAME_BYTES = 64
_MOST_REQUESTS = 64
_SLOT_BYTES = 1 + _NAME_BYTES + 1 + _MOST_REQUESTS * REQUEST_ID_BYTES
_BEATS_AT = _SLOTS * _SLOT_BYTES
_REASON_AT = _BEATS_AT + 8
_REASON_BYTES = 300
#: A setting of at most 4,096 characters, and a number.
_SLEEP_AT = _REASON_AT + _REASON_BYTES
_SLEEP_BYTES = 16_448


class Blackbox:
    """Marks of the work in progress, the event loop's heartbeat counter, and the reason of a deliberate exit."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLEEP_AT + _SLEEP_BYTES)

    def wipe(self) -> None:
        """Clears everything, for the next process."""
        self._memory[:] = bytes(len(self._memory))

    def begin(self, slot: int, module: str, requests: Iterable[bytes] = ()) -> None:
        """Marks that a module is being run (for some requests) or loaded in a slot's thread."""
        ids = b"".join(requests)[: _MOST_REQUESTS * REQUEST_ID_BYTES]
        mark = (
            b"\1"
            + module.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
            + bytes([len(ids) // REQUEST_ID_BYTES])
            + ids
        )
        at = slot * _SLOT_BYTES
        self._memory[at : at + len(mark)] = mark

    def end(self, slot: int) -> None:
        """Clears a slot's mark."""
        self._memory[slot * _SLOT_BYTES] = 0

    def marks(self) -> "list[Mark]":
        """Returns the marks of work in progress, now or when the process ended."""
        return [mark for slot in range(_SLOTS) if (mark := self._mark(slot)) is not None]

    def _mark(self, slot: int) -> "Mark | None":
        from s2m3.agents.supervision.restart_policy import Mark  # noqa: PLC0415  # dataclasses, for few supervisors

        raw = self._memory[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES]
        if not raw[0]:
            return None
        name = raw[1 : 1 + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        ids = raw[2 + _NAME_BYTES :]
        count = raw[1 + _NAME_BYTES]
        requests = tuple(ids[n * REQUEST_ID_BYTES : (n + 1) * REQUEST_ID_BYTES] for n in range(count))
        return Mark(slot, name, requests)

    def beat(self) -> None:
        """Increments the event loop's heartbeat counter."""
        self._memory[_BEATS_AT : _BEATS_AT + 8] = (self.beats + 1).to_bytes(8, "little")

    @property
    def beats(self) -> int:
        """The heartbeat counter; 0 until the event loop runs."""
        return int.from_bytes(self._memory[_BEATS_AT : _BEATS_AT + 8], "little")

    @property
    def reason(self) -> str:
        """Why the process was ended by itself or its supervisor; empty if it was not."""
        return self._memory[_REASON_AT:_SLEEP_AT].rstrip(b"\0").decode(errors="replace")

    @reason.setter
    def reason(self, text: str) -> None:
        self._memory[_REASON_AT:_SLEEP_AT] = text.encode()[:_REASON_BYTES].ljust(_REASON_BYTES, b"\0")

    @property
    def sleep(self) -> tuple[str, float] | None:
        """What puts the machine to sleep, and its grace, seconds; None unless the process ended for that."""
        command, _, grace_s = self._memory[_SLEEP_AT:].rstrip(b"\0").rpartition(b"\n")
        return (command.decode(), float(grace_s)) if grace_s else None

    @sleep.setter
    def sleep(self, order: tuple[str, float]) -> None:
        command, grace_s = order
        self._memory[_SLEEP_AT:] = f"{command}\n{grace_s}".encode().ljust(_SLEEP_BYTES, b"\0")
