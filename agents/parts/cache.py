"""Parts of checkpoints on this device's disk, by content: verified, bounded, never executable. No torch, no network.

<folder>/<digest>/manifest.json    what it is; its time of change is when the part was last opened
<folder>/<digest>/keys.json        where modules that are this part say that their weights come from
<folder>/<digest>/files/...        the part's files, read-only
<folder>/<digest>.partial/         a part that is being received (see partial.py), or put
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import structlog

from s2m3.agents.parts.hashing import ChunkedFile, describe_file, nbytes_of, read_chunks
from s2m3.schemas.errors import ModuleFailedError, NoCapacityError
from s2m3.schemas.parts import MANIFEST_BYTES, PartFile, PartManifest, check_file_name

__all__ = ["CachedPart", "OpenPart", "PartCache"]

_log = structlog.get_logger(__name__)
MANIFEST, FILES, LISTS, PARTIAL = "manifest.json", "files", "lists", ".partial"
_KEYS, _PUT = "keys.json", "put-"
_DIGEST = re.compile("[0-9a-f]{64}")
#: Most keys that one part is known under; the oldest are forgotten.
_MOST_KEYS = 64


@dataclass(frozen=True, slots=True)
class CachedPart:
    """A complete part in the cache. Another process may evict the part until it is opened.

    Args:
        manifest: Its files.
        folder: The folder that holds its files by their names.
        keys: Where modules that are this part say that their weights come from (`part_key`).
        used: When it was last opened, seconds since the epoch.
    """

    manifest: PartManifest
    folder: Path
    keys: tuple[str, ...]
    used: float


class OpenPart:
    """A part that is in use: no process evicts it before `close`. Also a context manager."""

    def __init__(self, part: CachedPart, lock: IO[bytes]) -> None:
        self.manifest, self.folder, self._lock = part.manifest, part.folder, lock

    def close(self) -> None:
        """Allows the part to be evicted."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PartCache:
    """The parts that one device keeps on disk. All methods may be called from any thread.

    Args:
        folder: The folder of the cache; made when first needed.
        limit_bytes: Most bytes of all parts; those that nobody has opened for longest are evicted first.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    # ---- what is there ----------------------------------------------------------------------------------------------

    def parts(self) -> list[CachedPart]:
        """Returns the complete parts, the last used one first. What cannot be read is passed over."""
        paths = self.folder.iterdir() if self.folder.is_dir() else iter(())
        found = [part for path in paths if (part := self._read(path)) is not None]
        return sorted(found, key=lambda part: (-part.used, part.manifest.digest))

    def find(
        self,
        *,
        content: str | None = None,
        key: str | None = None,
        runtimes: Collection[str] | None = None,
        dtype: str | None = None,
    ) -> list[CachedPart]:
        """Returns the parts that fit everything that is given, the last used one first.

        Args:
            content: The fingerprint of the module.
            key: Where a module's weights come from, see `part_key`.
            runtimes: What is to run the files, one of these.
            dtype: Dtype of the weights.
        """
        return [
            part
            for part in self.parts()
            if content in (None, part.manifest.content)
            and (key is None or key in part.keys)
            and (runtimes is None or part.manifest.runtime in runtimes)
            and dtype in (None, part.manifest.dtype)
        ]

    def keys(self, most: int, runtimes: Collection[str] | None = None) -> list[str]:
        """Returns where modules that are here say that their weights come from, sorted; of many the last used ones."""
        found = dict.fromkeys(key for part in self.find(runtimes=runtimes) for key in part.keys)
        return sorted(list(found)[:most])

    def get(self, digest: str) -> CachedPart | None:
        """Returns a part by its manifest's digest; None if it is not here or not complete."""
        return self._read(self.folder / digest) if _DIGEST.fullmatch(digest) else None

    def open(self, digest: str) -> OpenPart | None:
        """Opens a part by its manifest's digest, so that it is not evicted; None if it is not here."""
        part = self.get(digest)
        if part is None:
            return None
        path = part.folder.parent / MANIFEST
        try:
            lock = path.open("rb")
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.utime(path)
        except OSError:  # evicted between the two calls
            lock.close()
            return None
        if not path.exists():
            lock.close()
            return None
        return OpenPart(part, lock)

    # ---- what comes and goes ----------------------------------------------------------------------------------------

    def put(
        self,
        files: Mapping[str, Path | ChunkedFile],
        *,
        content: str,
        runtime: str,
        dtype: str,
        keys: Iterable[str] = (),
    ) -> CachedPart:
        """Copies the files of a part into the cache, hashing them on the way.

        Args:
            files: Name in the part, `/` between folders -> file.
            content: The fingerprint of the module.
            runtime: What runs the files: `torch`, `onnx`.
            dtype: Dtype of the weights.
            keys: Where modules that are this part say that their weights come from.

        Raises:
            BadInputError: A file's name is of no kind that a part may have.
            NoCapacityError: The part is larger than the cache, or what is in use leaves no room.
            ModuleFailedError: A file cannot be read, or the disk is full.
        """
        for name in files:
            check_file_name(name)
        self.make_room(sum(map(nbytes_of, files.values())))
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self.folder.glob(f"{_PUT}*{PARTIAL}"):  # of a process that was killed
            self.evict(left.name)
        made = Path(tempfile.mkdtemp(prefix=_PUT, suffix=PARTIAL, dir=self.folder))
        try:
            with (made / MANIFEST).open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                described = [_copy(name, file, made, place) for place, (name, file) in enumerate(sorted(files.items()))]
                manifest = PartManifest(content=content, runtime=runtime, dtype=dtype, files=described)
                return self.complete(made, manifest, keys)
        except OSError as error:
            raise ModuleFailedError(f"the part cannot be kept: {error}") from error
        finally:
            _remove(made)

    def complete(self, folder: Path, manifest: PartManifest, keys: Iterable[str] = ()) -> CachedPart:
        """Makes a folder whose verified files lie under `files/` a part of the cache, in one step.

        Args:
            folder: The folder, on the cache's file system; it is gone afterwards.
            manifest: The manifest that its files have been verified against.
            keys: Where modules that are this part say that their weights come from.

        Raises:
            OSError: The disk is full, or not writable.
        """
        place = self.folder / manifest.digest
        if self._read(place) is None:
            (folder / MANIFEST).write_bytes(manifest.encode())
            (folder / _KEYS).write_text(json.dumps(list(dict.fromkeys(keys))[-_MOST_KEYS:]), encoding="utf-8")
            _sync(folder)
            _remove(place)  # something that cannot be read
            try:
                folder.rename(place)
            except OSError:
                if self._read(place) is None:
                    raise
            # not before: what a cut leaves of an incomplete part has to stay writable
            for path in [place / FILES, *sorted((place / FILES).rglob("*"))]:
                path.chmod(0o500 if path.is_dir() else 0o400)
        _remove(folder)  # another process was faster
        self.add_keys(manifest.digest, keys)
        found = self._read(place)
        if found is None:
            raise OSError(f"{place} was removed while it was written")
        return found

    def add_keys(self, digest: str, keys: Iterable[str]) -> None:
        """Notes further origins of a part; the latest are kept."""
        part = self.get(digest)
        if part is None or set(keys) <= set(part.keys):
            return
        new = [*(key for key in part.keys if key not in set(keys)), *dict.fromkeys(keys)][-_MOST_KEYS:]
        with tempfile.NamedTemporaryFile("w", dir=part.folder.parent, delete=False, encoding="utf-8") as file:
            json.dump(new, file)
        Path(file.name).replace(part.folder.parent / _KEYS)

    def make_room(self, nbytes: int, keep: Collection[str] = ()) -> None:
        """Evicts parts that nobody has open until there is room: incomplete ones first, then the least recently used.

        Args:
            nbytes: Bytes that are to come.
            keep: Digests of parts that stay.

        Raises:
            NoCapacityError: There is not enough room even then; the text says how much there is.
        """
        if nbytes > self.limit_bytes:
            raise NoCapacityError(
                f"a part of {nbytes / 1e6:.0f} MB, and the cache of parts holds {self.limit_bytes / 1e6:.0f} MB at most"
            )
        taken = {path.name: _taken_by(path) for path in self._folders()}  # also of what a cut left
        taken |= (whole := {part.manifest.digest: (part.used, part.manifest.nbytes) for part in self.parts()})
        free = self.limit_bytes - sum(size for _, size in taken.values())
        for name, (_, size) in sorted(taken.items(), key=lambda item: (item[0] in whole, item[1])):
            if free >= nbytes:
                return
            if name.removesuffix(PARTIAL) not in keep and self.evict(name):
                free += size
        if free < nbytes:
            raise NoCapacityError(
                f"a part of {nbytes / 1e6:.0f} MB, and all but {max(free, 0) / 1e6:.0f} MB of the cache is in use"
            )

    def evict(self, name: str) -> bool:
        """Removes a part by the name of its folder; returns whether it is gone. One that somebody has open stays."""
        path = self.folder / name
        try:
            with (path / MANIFEST).open("ab") as lock:  # made where a cut left none
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path / MANIFEST).unlink()  # first: from here on nobody opens the part
                _remove(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        _log.info("part_evicted", part=name[:12])
        return True

    def _folders(self) -> list[Path]:
        """Returns the folders of all parts, incomplete ones and what a cut left of one too."""
        paths = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return [path for path in paths if path.name.endswith(PARTIAL) or _DIGEST.fullmatch(path.name)]

    def _read(self, path: Path) -> CachedPart | None:
        """Returns the part of a folder; None if it is none, or not all of its files are there."""
        manifest = _manifest_of(path)
        if manifest is None or manifest.digest != path.name:
            return None
        try:
            used = (path / MANIFEST).stat().st_mtime
            sizes = [(path / FILES / file.name).stat().st_size for file in manifest.files]
        except OSError:
            return None
        if sizes != [file.bytes for file in manifest.files]:
            return None
        return CachedPart(manifest, path / FILES, _keys_of(path), used)


def _keys_of(path: Path) -> tuple[str, ...]:
    try:
        found = json.loads((path / _KEYS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(key for key in found if isinstance(key, str)) if isinstance(found, list) else ()


def _copy(name: str, source: Path | ChunkedFile, folder: Path, place: int) -> PartFile:
    """Copies one file of a part into the folder of the part, with the list of its pieces' hashes."""
    target = folder / FILES / name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with target.open("xb") as file:

        def copied() -> Iterable[bytes]:
            for chunk in read_chunks(source):
                file.write(chunk)
                yield chunk

        described, hashes = describe_file(name, copied())
    (folder / LISTS).mkdir(exist_ok=True, mode=0o700)
    (folder / LISTS / str(place)).write_bytes(hashes)
    return described


def _sync(folder: Path) -> None:
    """Has the disk write all files of a folder: after a power cut, a renamed folder may be there and its bytes not."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _taken_by(folder: Path) -> tuple[float, int]:
    """Returns when an incomplete part changed, and the bytes that it takes, or will take when it is complete."""
    try:
        changed = folder.stat().st_mtime
        taken = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    except FileNotFoundError:  # it is complete now, or was removed
        return 0.0, 0
    manifest = _manifest_of(folder)
    return changed, max(taken, manifest.nbytes) if manifest is not None else taken


def _manifest_of(folder: Path) -> PartManifest | None:
    try:
        with (folder / MANIFEST).open("rb") as file:
            return PartManifest.model_validate_json(file.read(MANIFEST_BYTES))
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        return None


def _remove(path: Path) -> None:
    """Removes a part's folder, whose own folders are read-only."""
    if not path.exists():
        return
    for folder in [path, *path.rglob("*")]:
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
