"""A part that this node sends: its manifest, where its bytes lie, and the hashes of its pieces."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.parts.cache import LISTS, OpenPart, PartCache
from s2m3.agents.parts.exporting import exported_digest
from s2m3.agents.parts.hashing import describe_file
from s2m3.agents.parts.hashing_process import described
from s2m3.agents.parts.torch_files import VirtualFile, file_of, stamp_of, torch_files
from s2m3.agents.registry.classes import OF_CHECKPOINTS
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.parts import HASH_BYTES, HASHES_AT_ONCE, PartManifest, PieceRequest

__all__ = ["ServedPart", "of_cache", "of_export", "of_folder"]

#: Where the bytes of a file were when they were hashed: size, time of change, number.
Stamp = dict[Path, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class ServedPart:
    """A part whose pieces can be read.

    Args:
        manifest: Its files.
        original: Whether they lie in the checkpoint that modules name, not in the cache.
        files: Where the bytes of each file lie, in the manifest's order.
        lists: The hashes of each file's pieces.
        stamps: Of each file.
        is_cached: Whether the files lie in the cache, where they may be evicted after `close`.
        origin: Of a part that was made of the checkpoint's files: those files, and their stamp.
        close: To be called when the part is not sent any more.
    """

    manifest: PartManifest
    original: bool
    files: tuple[VirtualFile, ...]
    lists: tuple[bytes, ...]
    stamps: tuple[Stamp, ...] = field(repr=False)
    is_cached: bool = False
    origin: tuple[tuple[VirtualFile, ...], Stamp] = field(default=((), {}), repr=False)
    close: Callable[[], None] = field(default=lambda: None, repr=False)

    def is_current(self, file: int) -> bool:
        """Returns whether a file is what it was when it was hashed, and the checkpoint what it was made of."""
        made_of, stamp = self.origin
        try:
            return stamp_of([self.files[file]]) == self.stamps[file] and stamp_of(made_of) == stamp
        except OSError:
            return False

    @property
    def is_original(self) -> bool:
        """Whether it is of the checkpoint that modules name as that is now; looks at the files."""
        return self.original and all(self.is_current(file) for file in range(len(self.files)))

    def has(self, request: PieceRequest) -> bool:
        """Returns whether there is such a piece, or block of hashes."""
        if request.file >= len(self.files):
            return False
        pieces = self.manifest.pieces_of(request.file)
        return request.piece < (-(-pieces // HASHES_AT_ONCE) if request.hashes else pieces)

    def read(self, request: PieceRequest) -> bytes | None:
        """Returns a piece that the part has; None if its file has changed or cannot be read."""
        if request.hashes:
            size = HASH_BYTES * HASHES_AT_ONCE
            return self.lists[request.file][request.piece * size : (request.piece + 1) * size]
        if not self.is_current(request.file):
            return None
        length = self.manifest.length_of(request.file, request.piece)
        try:
            data = self.files[request.file].read(request.piece * self.manifest.piece_bytes, length)
        except OSError:
            return None
        return data if len(data) == length else None


def of_folder(spec: ModuleSpec, sources: CheckpointSources) -> ServedPart:
    """Returns a module's part of a checkpoint's folder. All of it is read, twice if its fingerprint is not known.

    Raises:
        ModuleFailedError: A file cannot be read, or changed meanwhile.
    """
    opened = open_part(spec, sources)
    files = tuple(torch_files(opened))
    try:
        stamps = tuple(stamp_of([file]) for file in files)
        manifest, lists = described(spec, sources)
        is_current = tuple(stamp_of([file]) for file in files) == stamps
    except OSError as error:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} cannot be read: {error}") from error
    if not is_current or [(file.name, file.bytes) for file in manifest.files] != [(f.name, f.nbytes) for f in files]:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} was changed while it was read")
    return ServedPart(manifest, True, files, tuple(lists), stamps)  # noqa: FBT003


def of_export(spec: ModuleSpec, sources: CheckpointSources, cache: PartCache) -> ServedPart:
    """Returns a module's exported part, which is made and put into the cache if need be.

    Raises:
        ModuleFailedError: It cannot be exported, its export did not pass its check, or a file changed meanwhile.
        OSError: A file cannot be read.
    """
    files = tuple(torch_files(open_part(spec, sources))) if spec.class_ in OF_CHECKPOINTS else ()
    stamp = stamp_of(files)
    opened = cache.open(exported_digest(spec, sources, cache))
    if opened is None or stamp_of(files) != stamp:
        raise ModuleFailedError(f"{spec.source} was changed, or its export removed, while it was exported")
    return replace(of_cache(opened), original=True, origin=(files, stamp))


def of_cache(part: OpenPart) -> ServedPart:
    """Returns a part of the cache, which stays there until it is closed.

    Raises:
        OSError: A file cannot be read.
    """
    files = tuple(file_of(file.name, part.folder / file.name) for file in part.manifest.files)
    lists: list[bytes] = []
    for index, file in enumerate(files):
        path = part.folder.parent / LISTS / str(index)
        known = path.read_bytes() if path.is_file() else b""
        if len(known) != HASH_BYTES * part.manifest.pieces_of(index):  # of a file of one piece no list is kept
            _, known = describe_file(file.name, file.chunks(), part.manifest.piece_bytes)
        lists.append(known)
    stamps = tuple(stamp_of([file]) for file in files)
    return ServedPart(part.manifest, False, files, tuple(lists), stamps, is_cached=True, close=part.close)  # noqa: FBT003
