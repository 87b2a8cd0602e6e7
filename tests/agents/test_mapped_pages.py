"""What Linux says of a process's mappings: of which bytes are pages of mapped weights."""

from pathlib import Path

import pytest

from s2m3.agents import mapped_pages
from s2m3.agents.mapped_pages import MappedPages, resident_bytes

#: A mapping of weights of which 8 kB were written to, code, weights of another folder whose name begins alike, a heap.
SMAPS = """\
7f00-7f10 rw-p 00000000 08:01 11                         /cache/parts/ab/files/model.safetensors
Size:               4096 kB
Rss:                 100 kB
Pss:                 100 kB
Anonymous:             8 kB
VmFlags: rd wr mr mw me nr sd
7f10-7f20 r-xp 00000000 08:01 12                         /usr/lib/libtorch.so
Rss:                3000 kB
Anonymous:             0 kB
7f20-7f30 rw-p 00000000 08:01 13                         /cache/parts/ab-other/files/model.safetensors
Rss:                 500 kB
Anonymous:             0 kB
7f30-7f40 r--p 00001000 08:01 14                         /cache/parts/cd/files/model.onnx.data (deleted)
Rss:                  40 kB
Anonymous:             0 kB
7f40-7f50 rw-p 00000000 00:00 0
Rss:                7000 kB
Anonymous:          7000 kB
""".splitlines(keepends=True)


@pytest.mark.parametrize(
    ("folders", "kilobytes"),
    [
        (["/cache/parts/ab/"], 92),
        (["/cache/parts/ab/", "/cache/parts/cd/"], 132),
        (["/cache/parts/"], 632),
        (["/nowhere/"], 0),
        ([], 0),
    ],
)
def test_pages_of_files_below_the_folders_count_without_those_that_were_written_to(
    folders: list[str], kilobytes: int
) -> None:
    assert resident_bytes(SMAPS, folders) == 1024 * kilobytes


def test_what_is_shared_beyond_what_it_was_before_is_weights_until_it_is_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaps = tmp_path / "smaps"
    smaps.write_text(f"7f00-7f10 rw-p 00000000 08:01 11    {tmp_path}/part/model.safetensors\nRss: 2 kB\n")
    monkeypatch.setattr(mapped_pages, "_SMAPS", smaps)
    pages = MappedPages()
    assert not pages
    pages.recount(9_000)
    assert pages.in_memory(9_000) == 0
    pages.add(tmp_path / "part", 5_000)
    assert pages.in_memory(6_000) == 1_000
    assert pages.in_memory(4_000) == 0
    pages.recount(9_000)  # 2048 of them are weights, others are code that was loaded meanwhile
    assert pages.in_memory(9_000) == 2_048
    pages.add(tmp_path / "other", 9_000)  # whose pages are not there yet
    assert pages.in_memory(9_000) == 2_048
    smaps.unlink()
    pages.recount(9_000)
    assert pages.in_memory(9_000) == 0


def test_a_folder_counts_as_long_as_one_of_its_modules_is_there(tmp_path: Path) -> None:
    pages = MappedPages()
    for _ in range(2):
        pages.add(tmp_path, 1_000)
    pages.remove(tmp_path)
    assert pages
    assert pages.in_memory(3_000) == 2_000
    pages.remove(tmp_path)
    assert not pages
    assert pages.in_memory(3_000) == 0
