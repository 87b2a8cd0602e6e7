"""What was being done when a process died: a little memory that the agent writes and its keeper reads afterwards.

Shared by a fork, so that writing costs no system call. Never locked: each slot has one writer, and is read after death.
"""

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

from s2m3.schemas.ids import REQUEST_ID_BYTES

__all__ = ["LOADING", "LOOP", "WORKER", "Blackbox", "Mark"]

#: Who is at work: the runner's thread, the loop's (light modules), the loader's.
WORKER, LOOP, LOADING = range(3)
_SLOTS = 3
_NAME_BYTES = 64
_MOST_REQUESTS = 64
_SLOT_BYTES = 1 + _NAME_BYTES + 1 + _MOST_REQUESTS * REQUEST_ID_BYTES
_BEATS_AT = _SLOTS * _SLOT_BYTES
_REASON_AT = _BEATS_AT + 8
_REASON_BYTES = 300


@dataclass(frozen=True, slots=True)
class Mark:
    """A module that was being run (for these requests) or loaded (for none)."""

    slot: int
    module: str
    requests: tuple[bytes, ...]


class Blackbox:
    """Marks of what is under way, a count of the loop's turns, and a last word."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _REASON_AT + _REASON_BYTES)

    def wipe(self) -> None:
        """Forgets everything, for the next process."""
        self._memory[:] = bytes(len(self._memory))

    def begin(self, slot: int, module: str, requests: Iterable[bytes] = ()) -> None:
        """Marks that a module is being run or loaded."""
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
        """Takes the mark away."""
        self._memory[slot * _SLOT_BYTES] = 0

    def marks(self) -> list[Mark]:
        """Returns what is, or was at the end, under way."""
        return [mark for slot in range(_SLOTS) if (mark := self._mark(slot)) is not None]

    def _mark(self, slot: int) -> Mark | None:
        raw = self._memory[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES]
        if not raw[0]:
            return None
        name = raw[1 : 1 + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        ids = raw[2 + _NAME_BYTES :]
        count = raw[1 + _NAME_BYTES]
        requests = tuple(ids[n * REQUEST_ID_BYTES : (n + 1) * REQUEST_ID_BYTES] for n in range(count))
        return Mark(slot, name, requests)

    def beat(self) -> None:
        """Says that the loop still turns."""
        self._memory[_BEATS_AT : _BEATS_AT + 8] = (self.beats + 1).to_bytes(8, "little")

    @property
    def beats(self) -> int:
        """How often it has said so; 0 until it is up."""
        return int.from_bytes(self._memory[_BEATS_AT : _BEATS_AT + 8], "little")

    @property
    def reason(self) -> str:
        """Why the process ended itself; empty if it did not."""
        return self._memory[_REASON_AT:].rstrip(b"\0").decode(errors="replace")

    @reason.setter
    def reason(self, text: str) -> None:
        self._memory[_REASON_AT:] = text.encode()[:_REASON_BYTES].ljust(_REASON_BYTES, b"\0")
