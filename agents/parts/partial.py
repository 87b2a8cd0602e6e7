"""A part on disk while its pieces come: each is checked before it counts, and what was there is there after a cut."""

import fcntl
import hashlib
import shutil
from collections.abc import Iterable

from s2m3.agents.parts.cache import FILES, LISTS, MANIFEST, PARTIAL, CachedPart, PartCache
from s2m3.agents.parts.download import Wanted
from s2m3.agents.parts.hashing import read_chunks
from s2m3.schemas.errors import BusyError
from s2m3.schemas.parts import HASH_BYTES, PartManifest

__all__ = ["PartialPart"]

#: One byte per piece of all files, in order: 1 if the piece is here.
_HELD = "held"
#: Pieces between two notes of which pieces are here; what came since the last note is fetched again after a cut.
_NOTED_EACH = 64


class PartialPart:
    """The folder of a part that is being fetched; no other process has it open at the same time.

    Raises:
        BusyError: Another process of this device fetches the part.
        NoCapacityError: The cache has no room for it.
        OSError: The disk is full, or not writable. This goes for all methods.

    Args:
        cache: The cache that the part will be of.
        manifest: The part.
        keep: Digests of parts that are not evicted to make room.
    """

    def __init__(self, cache: PartCache, manifest: PartManifest, keep: Iterable[str] = ()) -> None:
        self.manifest, self._cache = manifest, cache
        self._folder = cache.folder / f"{manifest.digest}{PARTIAL}"
        self._files = [self._folder / FILES / file.name for file in manifest.files]
        if not self._folder.is_dir():
            cache.make_room(manifest.nbytes, set(keep))
        for path in (*self._files, self._folder / LISTS / "0"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (self._folder / MANIFEST).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise BusyError(f"another process fetches the part {manifest.digest[:12]}") from error
        self._lock.write(manifest.encode())
        self._lock.flush()
        self.lists = self._read_lists()
        self.held = self._read_held()
        self._unnoted = 0
        for file, path in zip(manifest.files, self._files, strict=True):
            with path.open("ab") as made:
                made.truncate(file.bytes)

    # ---- pieces -----------------------------------------------------------------------------------------------------

    def write(self, wanted: Wanted, data: bytes, sha256: str) -> bool:
        """Writes a piece if it is right; returns whether it is."""
        if hashlib.sha256(data).hexdigest() != sha256:
            return False
        with self._files[wanted.file].open("r+b") as file:
            file.seek(wanted.piece * self.manifest.piece_bytes)
            file.write(data)
        self.held[wanted.file][wanted.piece] = 1
        self._unnoted += 1
        if self._unnoted >= _NOTED_EACH:
            self.note()
        return True

    def write_list(self, file: int, hashes: bytes) -> None:
        """Keeps the checked list of a file's hashes."""
        (self._folder / LISTS / str(file)).write_bytes(hashes)
        self.lists[file] = hashes

    def note(self) -> None:
        """Notes on disk which pieces are here."""
        self._unnoted = 0
        new = self._folder / f"{_HELD}.new"
        new.write_bytes(b"".join(self.held))
        new.replace(self._folder / _HELD)

    # ---- the whole --------------------------------------------------------------------------------------------------

    def damaged(self) -> list[Wanted]:
        """Reads all files, and returns the pieces that are not what they were when they came; none if all is right.

        A file that is wrong although each of its pieces is right has all of its pieces returned: its list is wrong.
        """
        found: list[Wanted] = []
        for index, (file, path) in enumerate(zip(self.manifest.files, self._files, strict=True)):
            whole = hashlib.sha256()
            for chunk in read_chunks(path):
                whole.update(chunk)
            if whole.hexdigest() == file.sha256:
                continue
            wrong = [piece for piece in range(self.manifest.pieces_of(index)) if not self._is_right(index, piece)]
            found += [Wanted(index, piece) for piece in wrong or range(self.manifest.pieces_of(index))]
        for wanted in found:
            self.held[wanted.file][wanted.piece] = 0
        return found

    def complete(self, keys: Iterable[str]) -> CachedPart:
        """Makes it a part of the cache, under keys; to be called when nothing is damaged."""
        (self._folder / _HELD).unlink(missing_ok=True)
        part = self._cache.complete(self._folder, self.manifest, keys)
        self.close()
        return part

    def close(self) -> None:
        """Leaves what is here for later."""
        if self._lock.closed:
            return
        try:
            if self._folder.is_dir():
                self.note()
        finally:  # on a full disk too
            self._lock.close()

    def discard(self) -> None:
        """Removes it."""
        self._lock.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_right(self, file: int, piece: int) -> bool:
        with self._files[file].open("rb") as opened:
            opened.seek(piece * self.manifest.piece_bytes)
            data = opened.read(self.manifest.length_of(file, piece))
        whole = self.manifest.files[file].sha256
        listed = self.lists.get(file, b"")[piece * HASH_BYTES : (piece + 1) * HASH_BYTES].hex() or whole
        return hashlib.sha256(data).hexdigest() == listed

    def _read_lists(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for index, file in enumerate(self.manifest.files):
            path = self._folder / LISTS / str(index)
            hashes = path.read_bytes() if path.is_file() else b""
            if hashes and hashlib.sha256(hashes).hexdigest() == file.pieces_sha256:
                found[index] = hashes
        return found

    def _read_held(self) -> list[bytearray]:
        counts = [self.manifest.pieces_of(index) for index in range(len(self.manifest.files))]
        path = self._folder / _HELD
        noted = path.read_bytes() if path.is_file() else b""
        if len(noted) != sum(counts) or noted.strip(b"\0\1"):
            noted = bytes(sum(counts))
        found, at = [], 0
        for index, count in enumerate(counts):
            known = count <= 1 or index in self.lists
            found.append(bytearray(noted[at : at + count] if known and self._files[index].is_file() else bytes(count)))
            at += count
        return found
