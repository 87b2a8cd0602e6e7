"""The cache of parts: content-addressed, bounded, never executable, and nobody's part is evicted under them."""

import fcntl
import hashlib
import os
import stat
from pathlib import Path

import pytest

from s2m3.agents.parts.cache import CachedPart, PartCache
from s2m3.schemas.errors import BadInputError, NoCapacityError
from s2m3.schemas.parts import PIECE_BYTES

CONTENT = "c" * 64
KB = 1000


def _put(cache: PartCache, tmp_path: Path, nbytes: int = 10, content: str = CONTENT, key: str = "here") -> CachedPart:
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(nbytes))
    return cache.put({"model.onnx": weights}, content=content, runtime="onnx", dtype="float32", keys=[key])


def _used_at(part: CachedPart, seconds: float) -> None:
    os.utime(part.folder.parent / "manifest.json", (seconds, seconds))


def test_a_part_is_found_by_content_key_runtime_and_dtype_and_holds_the_files_bytes(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 1_000_000)
    data = os.urandom(PIECE_BYTES + 5)
    (tmp_path / "weights").write_bytes(data)
    (tmp_path / "config").write_text("{}")
    files = {"model.onnx": tmp_path / "weights", "tokenizer/vocab.json": tmp_path / "config"}
    put = cache.put(files, content=CONTENT, runtime="onnx", dtype="float32", keys=["a", "b"])
    assert put.manifest.nbytes == len(data) + 2
    with cache.open(put.manifest.digest) or pytest.fail("it is not there") as part:
        assert (part.folder / "model.onnx").read_bytes() == data
        assert (part.folder / "tokenizer/vocab.json").read_text() == "{}"
    model = put.manifest.files[0]
    pieces = [hashlib.sha256(piece).digest() for piece in (data[:PIECE_BYTES], data[PIECE_BYTES:])]
    assert model.sha256 == hashlib.sha256(data).hexdigest()
    assert model.pieces_sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert [part.manifest for part in cache.find(content=CONTENT, key="b", runtimes=["onnx"], dtype="float32")] == [
        put.manifest
    ]
    for other in ({"content": "d" * 64}, {"key": "c"}, {"runtimes": ["torch"]}, {"dtype": "float16"}):
        assert cache.find(**other) == []


def test_the_same_files_are_kept_once_under_all_keys(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 1_000_000)
    (tmp_path / "weights").write_bytes(b"numbers")
    for key in ("first", "second"):
        cache.put({"model.onnx": tmp_path / "weights"}, content=CONTENT, runtime="onnx", dtype="", keys=[key])
    (only,) = cache.parts()
    assert set(only.keys) == {"first", "second"}
    assert {path.name for path in cache.folder.iterdir()} == {only.manifest.digest}


def test_nothing_in_the_cache_can_be_executed_or_changed(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 1_000_000)
    (tmp_path / "weights").write_bytes(b"#!/bin/sh")
    (tmp_path / "weights").chmod(0o777)
    part = cache.put({"model.onnx": tmp_path / "weights"}, content=CONTENT, runtime="onnx", dtype="")
    assert stat.S_IMODE((part.folder / "model.onnx").stat().st_mode) == 0o400


NO_NAMES = [
    *("", "model", "../model.onnx", "/etc/model.onnx", "a/../../m.json", "a\\b.json", "a//b.json", "model.onnx\n"),
    *("model.py", "model.bin", "model.pt", "model.so", "m.pkl", ".hidden.json", "x/.git/config.json"),
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_leads_out_or_is_of_code_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(BadInputError):
        PartCache(tmp_path / "cache", 1_000_000).put(
            {name: tmp_path / "weights"}, content=CONTENT, runtime="onnx", dtype=""
        )


def test_the_least_recently_used_part_that_nobody_has_open_makes_room(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 100 * KB)
    parts = [_put(cache, tmp_path, 30 * KB) for _ in range(3)]
    for seconds, part in enumerate(parts):
        _used_at(part, 1000 + seconds)
    opened = cache.open(parts[0].manifest.digest) or pytest.fail("it is not there")
    _used_at(parts[0], 1000)  # the oldest, but in use
    newest = _put(cache, tmp_path, 30 * KB)
    assert {part.manifest.digest for part in cache.parts()} == {
        part.manifest.digest for part in (parts[0], parts[2], newest)
    }
    opened.close()
    _used_at(parts[0], 1000)
    _put(cache, tmp_path, 30 * KB)
    assert cache.get(parts[0].manifest.digest) is None
    assert sum(part.manifest.nbytes for part in cache.parts()) <= 100 * KB


def test_a_part_that_cannot_have_room_is_refused_with_how_much_there_is(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 100 * KB)
    kept = _put(cache, tmp_path, 60 * KB)
    with pytest.raises(NoCapacityError, match="holds 0 MB at most"):
        _put(cache, tmp_path, 101 * KB)
    with cache.open(kept.manifest.digest) or pytest.fail("it is not there"), pytest.raises(NoCapacityError):
        _put(cache, tmp_path, 60 * KB)
    assert [part.manifest for part in cache.parts()] == [kept.manifest]


def test_what_a_killed_process_left_is_removed_by_the_next_part_and_what_one_is_making_stays(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 100 * KB)
    for name in ("put-dead.partial", "put-alive.partial"):
        (cache.folder / name / "files").mkdir(parents=True)
        (cache.folder / name / "files" / "model.onnx").write_bytes(bytes(10 * KB))
    with (cache.folder / "put-alive.partial" / "manifest.json").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        put = _put(cache, tmp_path)
        assert {path.name for path in cache.folder.iterdir()} == {"put-alive.partial", put.manifest.digest}
        with pytest.raises(NoCapacityError):
            cache.make_room(95 * KB)
    cache.make_room(95 * KB)
    assert list(cache.folder.iterdir()) == []


def test_an_eviction_that_was_cut_off_is_ended_when_room_is_needed(tmp_path: Path) -> None:
    cache = PartCache(tmp_path / "cache", 100 * KB)
    cut, kept = _put(cache, tmp_path, 60 * KB), _put(cache, tmp_path, 20 * KB)
    (cut.folder.parent / "manifest.json").unlink()
    newest = _put(cache, tmp_path, 60 * KB)
    assert {path.name for path in cache.folder.iterdir()} == {kept.manifest.digest, newest.manifest.digest}


@pytest.mark.parametrize("damage", ["shorter", "no manifest", "another manifest"])
def test_a_damaged_part_is_passed_over_and_replaced(tmp_path: Path, damage: str) -> None:
    cache = PartCache(tmp_path / "cache", 100 * KB)
    (tmp_path / "weights").write_bytes(b"numbers")
    part = cache.put({"model.onnx": tmp_path / "weights"}, content=CONTENT, runtime="onnx", dtype="")
    manifest, model = part.folder.parent / "manifest.json", part.folder / "model.onnx"
    if damage == "shorter":
        model.chmod(0o600)
        model.write_bytes(b"num")
    elif damage == "no manifest":
        manifest.write_bytes(b"{")
    else:
        manifest.write_bytes(manifest.read_bytes().replace(b"c" * 64, b"d" * 64))
    assert cache.parts() == []
    assert cache.open(part.manifest.digest) is None
    again = cache.put({"model.onnx": tmp_path / "weights"}, content=CONTENT, runtime="onnx", dtype="")
    assert (again.folder / "model.onnx").read_bytes() == b"numbers"
