"""Which piece is asked of whom: every piece once, hashes first, nothing of a holder that was wrong, resumed as left."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.agents.parts.download import MOST_UNDER_WAY, Ask, Download, Wanted
from s2m3.agents.parts.window import MOST_PIECES, Window
from s2m3.schemas.parts import HASH_BYTES, HASHES_AT_ONCE, PartFile, PartManifest

PIECE = 1024


def part(*sizes: int) -> tuple[PartManifest, list[bytes]]:
    """A part whose files have these lengths in bytes, and its lists of hashes."""
    contents = [hashlib.shake_128(bytes([size % 251])).digest(size) for size in sizes]
    lists = [b"".join(hashlib.sha256(c[i : i + PIECE]).digest() for i in range(0, len(c), PIECE)) for c in contents]
    files = [
        PartFile(
            name=f"{place}.json",
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            pieces_sha256=hashlib.sha256(listed).hexdigest(),
        )
        for place, (content, listed) in enumerate(zip(contents, lists, strict=True))
    ]
    return PartManifest(content="a" * 64, runtime="torch", dtype="", piece_bytes=PIECE, files=files), lists


def block_of(lists: list[bytes], wanted: Wanted) -> bytes:
    size = HASH_BYTES * HASHES_AT_ONCE
    return lists[wanted.file][wanted.piece * size : (wanted.piece + 1) * size]


def listed(download: Download, lists: list[bytes], holder: str, now: float = 0.0) -> None:
    """Has one holder send the list of hashes that is asked first."""
    (ask,) = download.asks(now)
    assert (ask.holder, ask.wanted.hashes) == (holder, True)
    assert download.arrived(holder, ask.wanted, now)
    assert download.block(holder, ask.wanted, block_of(lists, ask.wanted))


def test_the_hashes_of_a_file_of_several_pieces_come_before_its_pieces() -> None:
    manifest, lists = part(3 * PIECE)
    download = Download(manifest)
    download.offered("a")
    listed(download, lists, "a")
    assert [ask.wanted for ask in download.asks(0.0)] == [Wanted(0, 0), Wanted(0, 1)]
    assert download.hash_of(Wanted(0, 2)) == lists[0][64:].hex()


def test_a_file_of_one_piece_has_its_own_hash_and_an_empty_one_needs_nothing() -> None:
    manifest, _ = part(5, 0)
    download = Download(manifest)
    download.offered("a")
    (ask,) = download.asks(0.0)
    assert (ask, download.hash_of(ask.wanted)) == (Ask("a", Wanted(0, 0)), manifest.files[0].sha256)
    assert download.arrived("a", ask.wanted, 0.1)
    download.right(ask.wanted)
    assert download.is_complete
    assert download.bytes_here == 5
    assert download.asks(1.0) == []


def test_what_is_here_already_is_not_asked_again() -> None:
    manifest, lists = part(3 * PIECE)
    download = Download(manifest, {0: [1, 0, 1]}, {0: lists[0]})
    assert download.bytes_here == 2 * PIECE
    download.offered("a")
    assert [ask.wanted for ask in download.asks(0.0)] == [Wanted(0, 1)]


def test_a_wrong_piece_ends_its_holder_and_is_asked_of_another() -> None:
    manifest, lists = part(2 * PIECE)
    download = Download(manifest, None, {0: lists[0]})
    for holder in ("a", "b"):
        download.offered(holder)
    first, second = download.asks(0.0)
    assert {first.holder, second.holder} == {"a", "b"}
    assert download.arrived(first.holder, first.wanted, 0.1)
    assert download.wrong(first.wanted, "not its hash") == first.holder
    assert download.refused == {first.holder: "not its hash"}
    download.offered(first.holder)  # it offers again, and stays refused
    assert download.holders == [second.holder]
    assert download.arrived(second.holder, second.wanted, 0.1)
    download.right(second.wanted)
    assert download.asks(0.2) == [Ask(second.holder, first.wanted)]


@pytest.mark.parametrize("wrong", [b"", b"x" * HASH_BYTES * 2, b"x" * 31])
def test_a_wrong_list_of_hashes_is_noticed_and_begun_anew(wrong: bytes) -> None:
    manifest, lists = part(2 * PIECE)
    download = Download(manifest)
    download.offered("a")
    download.offered("b")
    (ask,) = [ask for ask in download.asks(0.0) if ask.wanted.hashes]
    assert download.arrived(ask.holder, ask.wanted, 0.0)
    assert not download.block(ask.holder, ask.wanted, wrong)
    download.refuse(ask.holder, "hashes")
    listed(download, lists, "b" if ask.holder == "a" else "a", 1.0)


def test_a_long_list_comes_in_blocks_from_one_holder_alone() -> None:
    manifest, lists = part((HASHES_AT_ONCE + 1) * PIECE)
    download = Download(manifest)
    for holder in ("a", "b"):
        download.offered(holder)
    blocks = []
    for now in range(2):
        (ask,) = download.asks(now)
        blocks.append(ask)
        assert download.arrived(ask.holder, ask.wanted, now)
        assert download.block(ask.holder, ask.wanted, block_of(lists, ask.wanted))
    assert [ask.wanted for ask in blocks] == [Wanted(0, 0, hashes=True), Wanted(0, 1, hashes=True)]
    assert len({ask.holder for ask in blocks}) == 1
    assert download.lists[0] == lists[0]


def test_the_list_of_a_holder_that_is_gone_comes_from_another_from_its_beginning() -> None:
    manifest, lists = part((HASHES_AT_ONCE + 1) * PIECE)
    download = Download(manifest)
    download.offered("a")
    (ask,) = download.asks(0.0)
    assert download.arrived("a", ask.wanted, 0.0)
    assert download.block("a", ask.wanted, block_of(lists, ask.wanted))
    download.offered("b")
    download.gone("a")
    assert download.asks(1.0) == [Ask("b", Wanted(0, 0, hashes=True))]


def test_what_was_asked_of_a_holder_that_is_gone_is_asked_of_another() -> None:
    manifest, lists = part(2 * PIECE)
    download = Download(manifest, None, {0: lists[0]})
    download.offered("a")
    (ask,) = download.asks(0.0)
    download.offered("b")
    download.gone("a")
    assert not download.arrived("a", ask.wanted, 0.1)
    assert ask.wanted in [asked.wanted for asked in download.asks(0.1)]


def test_a_late_piece_is_asked_again_after_a_pause_that_grows_and_its_answer_does_not_count() -> None:
    manifest, lists = part(2 * PIECE)
    download = Download(manifest, None, {0: lists[0]})
    download.offered("a")
    (ask,) = download.asks(0.0)
    assert download.overdue(2.9) == []
    assert download.overdue(3.0) == [ask]
    assert not download.arrived("a", ask.wanted, 3.0)
    assert download.asks(3.9) == []
    assert download.asks(4.0) == [ask]
    assert download.overdue(9.9) == []
    assert download.overdue(10.0) == [ask]  # six seconds: twice as long
    assert download.asks(11.9) == []
    assert download.asks(12.0) == [ask]


def test_a_busy_holder_keeps_its_place_and_is_left_alone_for_a_moment() -> None:
    manifest, lists = part(2 * PIECE)
    download = Download(manifest, None, {0: lists[0]})
    download.offered("a")
    (ask,) = download.asks(0.0)
    download.busy("a", ask.wanted, 0.0)
    assert download.asks(0.2) == []
    assert download.asks(0.25) == [ask]


def test_a_damaged_piece_is_fetched_again() -> None:
    manifest, lists = part(2 * PIECE)
    download = Download(manifest, {0: [1, 1]}, {0: lists[0]})
    assert download.is_complete
    download.lost(Wanted(0, 1))
    assert not download.is_complete
    assert download.bytes_here == PIECE
    download.offered("a")
    assert download.asks(0.0) == [Ask("a", Wanted(0, 1))]


def test_no_more_is_under_way_than_allowed() -> None:
    manifest, lists = part(100 * PIECE)
    download = Download(manifest, None, {0: lists[0]})
    holders = [f"h{i}" for i in range(40)]
    for holder in holders:
        download.offered(holder)
    asked = download.asks(0.0)
    assert len(asked) == MOST_UNDER_WAY
    assert len({ask.wanted for ask in asked}) == MOST_UNDER_WAY
    assert len({ask.holder for ask in asked}) == MOST_UNDER_WAY
    assert download.asks(0.0) == []
    assert download.arrived(asked[0].holder, asked[0].wanted, 0.0)
    assert download.asks(0.0) == []  # it is being checked
    download.right(asked[0].wanted)
    assert len(download.asks(0.0)) == 1
    assert Download(manifest, None, {0: lists[0]}).asks(0.0, 1) == []


def test_a_busy_device_asks_for_one_piece_at_a_time() -> None:
    manifest, lists = part(9 * PIECE)
    download = Download(manifest, None, {0: lists[0]})
    for holder in ("a", "b"):
        download.offered(holder)
    assert len(download.asks(0.0, 1)) == 1
    assert download.asks(0.0, 1) == []


def answered(download: Download, lists: list[bytes], holder: str, wanted: Wanted, now: float) -> None:
    """Has a holder answer; the liar sends something wrong."""
    assert download.arrived(holder, wanted, now)
    if not wanted.hashes:
        if holder == "liar":
            assert download.wrong(wanted, "piece") == holder
        else:
            download.right(wanted)
    elif not download.block(holder, wanted, b"wrong" if holder == "liar" else block_of(lists, wanted)):
        download.refuse(holder, "hashes")


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 6 * PIECE), min_size=1, max_size=4))
def test_whatever_holders_do_every_piece_comes_and_was_checked(chance: random.Random, sizes: list[int]) -> None:
    """Holders are lost, silent, busy and wrong by chance; one is honest. Each piece is under way once at a time."""
    manifest, lists = part(*sizes)
    download, now, under_way = Download(manifest), 0.0, dict[Wanted, str]()
    while not download.is_complete:
        now += chance.choice([0.01, 0.1, 4.0])
        assert now < 20_000
        for holder in ("honest", "other", "liar"):
            download.offered(holder)
        for late in download.overdue(now):
            assert under_way.pop(late.wanted) == late.holder
        for ask in download.asks(now):
            assert ask.wanted not in under_way
            assert ask.holder not in download.refused
            under_way[ask.wanted] = ask.holder
        wanted, holder = chance.choice(sorted(under_way.items())) if under_way else (None, "")
        what = chance.choice(["silent", "busy", "answer", "answer", "answer", "gone"])
        if wanted is not None and what == "answer":
            answered(download, lists, holder, wanted, now)
            del under_way[wanted]
        elif wanted is not None and what == "busy":
            download.busy(holder, wanted, now)
            del under_way[wanted]
        elif what == "gone":
            download.gone("other")
        there = download.holders
        under_way = {wanted: holder for wanted, holder in under_way.items() if holder in there}
        if what == "gone":
            under_way = {wanted: holder for wanted, holder in under_way.items() if holder != "other"}
    assert set(download.refused) <= {"liar"}
    assert download.bytes_here == manifest.nbytes


def test_the_window_grows_while_pieces_are_quick_and_shrinks_when_they_wait_in_queues() -> None:
    window = Window()
    for _ in range(100):
        assert window.took(0.005) == 0.0
    assert window.pieces == MOST_PIECES
    for _ in range(20):
        window.took(0.2)
    assert window.pieces == 1
    assert window.took(0.2) == 0.2  # one piece at a time still waits: half of the time is left to others
    assert window.took(5.0) == 1.0


def test_a_way_that_became_longer_for_good_is_believed_after_a_while() -> None:
    window = Window()
    window.took(0.005)
    for _ in range(2500):
        window.took(0.1)
    assert window.quickest_s == pytest.approx(0.1)
    assert window.pieces > 1


def test_a_timeout_follows_what_pieces_took_and_doubles_with_each_silence() -> None:
    window = Window()
    assert window.timeout_s == 3.0
    window.took(2.0)
    assert window.timeout_s == 8.0
    window.lost()
    window.lost()
    assert window.timeout_s == 32.0
    window.lost()
    assert window.timeout_s == 60.0
    window.took(2.0)
    assert window.timeout_s == 8.0


def test_a_refusal_halves_the_window_and_a_loss_ends_it() -> None:
    window = Window(size=8.0)
    window.refused()
    assert window.size == 4.0
    window.lost()
    assert window.size == 1.0
    window.refused()
    assert window.size == 1.0
