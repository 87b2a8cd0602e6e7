"""A part on disk while its pieces come: only right ones count, and a cut loses no more than what was not noted."""

import hashlib
import shutil
from pathlib import Path

import pytest

from s2m3.agents.parts.cache import PartCache
from s2m3.agents.parts.download import Download, Wanted
from s2m3.agents.parts.hashing import describe_file
from s2m3.agents.parts.partial import PartialPart
from s2m3.schemas.errors import BusyError, NoCapacityError
from s2m3.schemas.parts import PartManifest

PIECE = 1024
DATA = hashlib.shake_128(b"weights").digest(5 * PIECE + 7)


def _part() -> tuple[PartManifest, bytes]:
    weights, hashes = describe_file("model.safetensors", [DATA], PIECE)
    config, _ = describe_file("config.json", [b"{}"], PIECE)
    files = [weights, config]
    return PartManifest(content="a" * 64, runtime="torch", dtype="", piece_bytes=PIECE, files=files), hashes


def _write(partial: PartialPart, piece: int, data: bytes | None = None) -> bool:
    right = DATA[piece * PIECE : (piece + 1) * PIECE]
    return partial.write(Wanted(0, piece), right if data is None else data, hashlib.sha256(right).hexdigest())


def _cut(partial: PartialPart) -> None:
    """Ends it as SIGKILL would: nothing more is written, and the system takes the lock away."""
    partial._lock.close()  # noqa: SLF001  # no method ends it without a note


def test_pieces_in_any_order_make_the_part(tmp_path: Path) -> None:
    manifest, hashes = _part()
    cache = PartCache(tmp_path, 1_000_000)
    partial = PartialPart(cache, manifest)
    partial.write_list(0, hashes)
    for piece in (5, 0, 3, 1, 4, 2):
        assert _write(partial, piece)
    assert partial.damaged() == [Wanted(1, 0)]
    assert partial.write(Wanted(1, 0), b"{}", manifest.files[1].sha256)
    assert partial.damaged() == []
    part = partial.complete(["key"])
    assert (part.folder / "model.safetensors").read_bytes() == DATA
    assert cache.find(key="key") == [part]
    assert [path.name for path in tmp_path.iterdir()] == [manifest.digest]


def test_a_wrong_piece_is_not_written(tmp_path: Path) -> None:
    manifest, hashes = _part()
    partial = PartialPart(PartCache(tmp_path, 1_000_000), manifest)
    partial.write_list(0, hashes)
    for wrong in (b"", b"x" * PIECE, DATA[: PIECE - 1]):
        assert not _write(partial, 0, wrong)
    assert sum(partial.held[0]) == 0


def test_what_was_noted_is_there_after_a_cut_and_the_rest_is_fetched_again(tmp_path: Path) -> None:
    manifest, hashes = _part()
    cache = PartCache(tmp_path, 1_000_000)
    partial = PartialPart(cache, manifest)
    partial.write_list(0, hashes)
    for piece in (0, 2):
        assert _write(partial, piece)
    partial.note()
    assert _write(partial, 3)
    _cut(partial)
    again = PartialPart(cache, manifest)
    assert list(again.held[0]) == [1, 0, 1, 0, 0, 0]
    download = Download(manifest, dict(enumerate(again.held)), again.lists)
    download.offered("a")
    asked = set()
    while not download.is_complete:
        for ask in download.asks(0.0):
            assert not ask.wanted.hashes
            asked.add(ask.wanted)
            assert download.arrived("a", ask.wanted, 0.0)
            download.right(ask.wanted)
    assert asked == {Wanted(0, 1), Wanted(0, 3), Wanted(0, 4), Wanted(0, 5), Wanted(1, 0)}


@pytest.mark.parametrize("damage", ["list", "note", "note of another length", "file"])
def test_what_cannot_be_trusted_after_a_cut_is_fetched_again(tmp_path: Path, damage: str) -> None:
    manifest, hashes = _part()
    cache = PartCache(tmp_path, 1_000_000)
    partial = PartialPart(cache, manifest)
    partial.write_list(0, hashes)
    for piece in range(6):
        assert _write(partial, piece)
    partial.note()
    _cut(partial)
    folder = tmp_path / f"{manifest.digest}.partial"
    if damage == "list":
        (folder / "lists" / "0").write_bytes(hashes[:-1])
    elif damage == "file":
        (folder / "files" / "model.safetensors").unlink()
    else:
        (folder / "held").write_bytes(b"\2" * 7 if damage == "note" else b"\1" * 6)
    assert sum(PartialPart(cache, manifest).held[0]) == 0


def test_a_piece_that_the_disk_lost_is_found_by_the_whole_files_hash(tmp_path: Path) -> None:
    manifest, hashes = _part()
    partial = PartialPart(PartCache(tmp_path, 1_000_000), manifest)
    partial.write_list(0, hashes)
    for piece in range(6):
        assert _write(partial, piece)
    assert partial.write(Wanted(1, 0), b"{}", manifest.files[1].sha256)
    weights = tmp_path / f"{manifest.digest}.partial" / "files" / "model.safetensors"
    weights.write_bytes(DATA[: 2 * PIECE] + bytes(PIECE) + DATA[3 * PIECE :])
    assert partial.damaged() == [Wanted(0, 2)]
    assert list(partial.held[0]) == [1, 1, 0, 1, 1, 1]


def test_a_list_that_is_not_of_the_file_damages_all_of_it(tmp_path: Path) -> None:
    """A holder's manifest whose list and whole contradict each other: nothing of the file counts."""
    manifest, hashes = _part()
    lying = manifest.files[0].model_copy(update={"sha256": "0" * 64})
    partial = PartialPart(PartCache(tmp_path, 1_000_000), manifest.model_copy(update={"files": [lying]}))
    partial.write_list(0, hashes)
    for piece in range(6):
        assert _write(partial, piece)
    assert partial.damaged() == [Wanted(0, piece) for piece in range(6)]


def test_two_processes_do_not_fetch_into_one_folder(tmp_path: Path) -> None:
    manifest, _ = _part()
    cache = PartCache(tmp_path, 1_000_000)
    partial = PartialPart(cache, manifest)
    with pytest.raises(BusyError):
        PartialPart(cache, manifest)
    partial.close()
    PartialPart(cache, manifest).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_part_whose_pieces_cannot_be_noted_may_be_taken_up_again(tmp_path: Path) -> None:
    """The disk is full when the fetch ends."""
    manifest, _ = _part()
    cache = PartCache(tmp_path, 1_000_000)
    partial = PartialPart(cache, manifest)
    in_the_way = tmp_path / f"{manifest.digest}.partial" / "held.new"
    in_the_way.mkdir()
    with pytest.raises(OSError, match=r"held\.new"):
        partial.close()
    in_the_way.rmdir()
    PartialPart(cache, manifest).close()


def test_a_part_that_another_process_completed_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    manifest, hashes = _part()
    cache = PartCache(tmp_path / "cache", 1_000_000)
    partial = PartialPart(cache, manifest)
    partial.write_list(0, hashes)
    for piece in range(6):
        assert _write(partial, piece)
    assert partial.write(Wanted(1, 0), b"{}", manifest.files[1].sha256)
    shutil.copytree(cache.folder / f"{manifest.digest}.partial", tmp_path / "theirs")
    cache.complete(tmp_path / "theirs", manifest, ["theirs"])
    assert partial.complete(["ours"]).keys == ("theirs", "ours")
    assert [path.name for path in cache.folder.iterdir()] == [manifest.digest]


def test_an_incomplete_part_makes_room_before_a_complete_one_but_not_while_it_comes(tmp_path: Path) -> None:
    manifest, hashes = _part()
    cache = PartCache(tmp_path, 60_000)  # an incomplete part takes whole blocks of the disk: some 20,000 bytes
    partial = PartialPart(cache, manifest)
    partial.write_list(0, hashes)
    for piece in range(6):
        assert _write(partial, piece)
    (tmp_path.parent / "weights").write_bytes(bytes(len(DATA)))
    kept = cache.put({"m.onnx": tmp_path.parent / "weights"}, content="b" * 64, runtime="onnx", dtype="")
    with pytest.raises(NoCapacityError):
        cache.make_room(50_000, keep=[kept.manifest.digest])
    partial.close()
    cache.make_room(50_000)
    assert [part.manifest for part in cache.parts()] == [kept.manifest]
    assert not list(tmp_path.glob("*.partial"))
