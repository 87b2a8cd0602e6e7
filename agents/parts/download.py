"""Which piece of a part to ask of whom next, and what to ask again. Pure: no I/O, and the time is an argument."""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from s2m3.agents.parts.window import Window
from s2m3.schemas.parts import HASH_BYTES, HASHES_AT_ONCE, PartManifest

__all__ = ["MOST_UNDER_WAY", "Ask", "Download", "Wanted"]

#: Most pieces from all holders together that are under way or being checked.
MOST_UNDER_WAY = 16
#: After a time-out nothing is asked of the holder for this long, doubled with each time-out in a row, seconds.
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0
_BUSY_S = 0.25


@dataclass(frozen=True, slots=True, order=True)
class Wanted:
    """A piece of a file, or a block of the hashes of a file's pieces (`hashes`), by indices."""

    file: int
    piece: int
    hashes: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask of a holder now."""

    holder: str
    wanted: Wanted


@dataclass(slots=True)
class _Holder:
    window: Window = field(default_factory=Window)
    #: what was asked of it -> when
    under_way: dict[Wanted, float] = field(default_factory=dict)
    #: nothing is asked before, monotonic seconds
    rests_until: float = 0.0


@dataclass(slots=True)
class _List:
    """The list of a file's hashes while it comes, block by block, from the one holder that sent its first block."""

    file: int
    holder: str | None = None
    hashes: bytearray = field(default_factory=bytearray)

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.file, len(self.hashes) // (HASH_BYTES * HASHES_AT_ONCE), hashes=True)


class Download:
    """The state of one part that is fetched from any number of holders.

    Each piece is asked of one holder at a time. The list of a file's hashes comes from a single holder, because only
    the whole list can be checked. A holder that sent something wrong is refused for good.

    Args:
        manifest: The part.
        held: File -> one byte per piece: 1 if the piece is here already.
        lists: File -> the hashes of its pieces, 32 bytes each, that are here already and were checked.
    """

    def __init__(
        self,
        manifest: PartManifest,
        held: Mapping[int, Sequence[int]] | None = None,
        lists: Mapping[int, bytes] | None = None,
    ) -> None:
        self.manifest = manifest
        self.refused: dict[str, str] = {}
        #: file -> the hashes of its pieces; a file of one piece needs none
        self.lists: dict[int, bytes] = dict(lists or {})
        files = range(len(manifest.files))
        self._held = [bytearray((held or {}).get(file, bytes(manifest.pieces_of(file)))) for file in files]
        self._left = sum(pieces.count(0) for pieces in self._held)
        self.bytes_here = sum(
            manifest.length_of(file, piece)
            for file, pieces in enumerate(self._held)
            for piece, is_here in enumerate(pieces)
            if is_here
        )
        self._unlisted = deque(
            file for file in files if len(self._held[file]) > 1 and file not in self.lists and 0 in self._held[file]
        )
        self._list: _List | None = None
        self._holders: dict[str, _Holder] = {}
        self._again: deque[Wanted] = deque()
        self._checking: dict[Wanted, str] = {}
        self._ready = deque(file for file in files if file not in self._unlisted)
        self._in_order = self._pieces()

    @property
    def is_complete(self) -> bool:
        """Whether every piece is here and was right."""
        return self._left == 0

    @property
    def is_checking(self) -> bool:
        """Whether pieces have come that were not found right or wrong yet."""
        return bool(self._checking)

    @property
    def holders(self) -> list[str]:
        """The holders that are asked."""
        return sorted(self._holders)

    def hash_of(self, wanted: Wanted) -> str:
        """Returns the SHA-256 that a piece must have, hexadecimal; its file's list of hashes must be here."""
        if len(self._held[wanted.file]) == 1:
            return self.manifest.files[wanted.file].sha256
        return self.lists[wanted.file][wanted.piece * HASH_BYTES : (wanted.piece + 1) * HASH_BYTES].hex()

    # ---- holders ----------------------------------------------------------------------------------------------------

    def offered(self, holder: str) -> None:
        """Adds a holder that has the part; no effect for one that was refused."""
        if holder not in self.refused:
            self._holders.setdefault(holder, _Holder())

    def gone(self, holder: str) -> None:
        """Removes a holder: it was lost, or has the part no more. What was asked of it is asked of others."""
        left = self._holders.pop(holder, None)
        if left is not None:
            self._give_back(left, list(left.under_way))
        if self._list is not None and self._list.holder == holder:
            self._restart_list()

    def refuse(self, holder: str, why: str) -> None:
        """Removes a holder for good: what it sent was wrong."""
        self.gone(holder)
        self.refused[holder] = why

    def busy(self, holder: str, wanted: Wanted, now: float) -> None:
        """Takes a holder's word that too much is asked of it: the piece is asked again, and less at a time."""
        found = self._holders.get(holder)
        if found is not None and wanted in found.under_way:
            self._give_back(found, [wanted])
            found.window.refused()
            found.rests_until = now + _BUSY_S

    # ---- asking -----------------------------------------------------------------------------------------------------

    def asks(self, now: float, most: int = MOST_UNDER_WAY) -> list[Ask]:
        """Returns what to ask now. To be called again when something has come, and now and then.

        Args:
            now: Monotonic seconds.
            most: Most pieces from all holders together that are under way or being checked.
        """
        found: list[Ask] = []
        free = most - sum(len(holder.under_way) for holder in self._holders.values()) - len(self._checking)
        idle: set[str] = set()
        while len(found) < free:
            able = [
                (len(holder.under_way) / holder.window.size, name)
                for name, holder in self._holders.items()
                if holder.rests_until <= now and len(holder.under_way) < holder.window.pieces and name not in idle
            ]
            if not able:
                break
            _, name = min(able)  # the holder with the most of its window free, so that all of them are asked
            wanted = self._take(name)
            if wanted is None:
                idle.add(name)
            else:
                self._holders[name].under_way[wanted] = now
                found.append(Ask(name, wanted))
        return found

    def overdue(self, now: float) -> list[Ask]:
        """Takes back what did not come in time, so that it is asked again, and returns it. To be called often."""
        late: list[Ask] = []
        for name, holder in self._holders.items():
            lost = [wanted for wanted, at in holder.under_way.items() if now - at >= holder.window.timeout_s]
            if lost:
                self._give_back(holder, lost)
                holder.window.lost()
                holder.rests_until = now + min(_PAUSE_S * 2 ** (holder.window.silences - 1), _LONGEST_PAUSE_S)
                late += [Ask(name, wanted) for wanted in lost]
        return late

    def _take(self, holder: str) -> Wanted | None:
        """Returns the next piece that a holder may be asked for; None if there is none now."""
        if self._list is None and self._unlisted:
            self._list = _List(self._unlisted.popleft())
        if self._list is not None and self._list.holder in (None, holder) and not self._is_asked(self._list.wanted):
            self._list.holder = holder
            return self._list.wanted
        if self._again:
            return self._again.popleft()
        return next(self._in_order, None) or self._more()

    def _more(self) -> Wanted | None:
        """Returns the first piece of the next file whose hashes are known."""
        if not self._ready:
            return None
        self._in_order = self._pieces()
        return next(self._in_order, None)

    def _pieces(self) -> Iterator[Wanted]:
        while self._ready:
            file = self._ready.popleft()
            yield from (Wanted(file, piece) for piece, is_here in enumerate(self._held[file]) if not is_here)

    def _is_asked(self, wanted: Wanted) -> bool:
        return any(wanted in holder.under_way for holder in self._holders.values())

    def _give_back(self, holder: _Holder, lost: Sequence[Wanted]) -> None:
        for wanted in lost:
            del holder.under_way[wanted]
            if wanted.hashes:
                self._restart_list()
            else:
                self._again.append(wanted)

    def _restart_list(self) -> None:
        if self._list is not None:
            self._list = _List(self._list.file)

    # ---- what came --------------------------------------------------------------------------------------------------

    def arrived(self, holder: str, wanted: Wanted, now: float) -> bool:
        """Counts an answer; returns whether it was asked of this holder and is still wanted.

        A piece is then being checked: `right` or `wrong` says how that ended. A block of hashes goes to `block`.
        """
        found = self._holders.get(holder)
        at = found.under_way.pop(wanted, None) if found is not None else None
        if found is None or at is None:
            return False
        rest_s = found.window.took(now - at)
        found.rests_until = max(found.rests_until, now + rest_s)
        if not wanted.hashes:
            self._checking[wanted] = holder
        return True

    def right(self, wanted: Wanted) -> None:
        """Counts a piece that is here and was right."""
        if self._checking.pop(wanted, None) is not None and not self._held[wanted.file][wanted.piece]:
            self._held[wanted.file][wanted.piece] = 1
            self._left -= 1
            self.bytes_here += self.manifest.length_of(wanted.file, wanted.piece)

    def wrong(self, wanted: Wanted, why: str) -> str | None:
        """Refuses the holder that sent a piece, which is asked of others; returns the holder."""
        holder = self._checking.pop(wanted, None)
        if holder is not None:
            self._again.append(wanted)
            self.refuse(holder, why)
        return holder

    def lost(self, wanted: Wanted) -> None:
        """Has a piece fetched again that was here and turned out to be damaged."""
        if self._held[wanted.file][wanted.piece]:
            self._held[wanted.file][wanted.piece] = 0
            self._left += 1
            self.bytes_here -= self.manifest.length_of(wanted.file, wanted.piece)
            self._again.append(wanted)

    def block(self, holder: str, wanted: Wanted, hashes: bytes) -> bool:
        """Takes a block of hashes after `arrived`; returns False if it is wrong, and the holder is to be refused."""
        listing = self._list
        if listing is None or listing.holder != holder or listing.wanted != wanted:
            return True  # of a list that was begun anew
        count = len(self._held[wanted.file])
        if len(hashes) != HASH_BYTES * min(HASHES_AT_ONCE, count - wanted.piece * HASHES_AT_ONCE):
            return False
        listing.hashes += hashes
        if len(listing.hashes) < HASH_BYTES * count:
            return True
        if hashlib.sha256(listing.hashes).hexdigest() != self.manifest.files[wanted.file].pieces_sha256:
            return False
        self.lists[wanted.file] = bytes(listing.hashes)
        self._ready.append(wanted.file)
        self._list = None
        return True
