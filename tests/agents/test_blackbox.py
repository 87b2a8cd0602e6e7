"""What a process was at when it died is read by another process, whatever it wrote last."""

import os

import pytest

from s2m3.agents.supervision.blackbox import LOADING, LOOP, WORKER, Blackbox
from s2m3.agents.supervision.restart_policy import Mark

IDS = [n.to_bytes(16, "big") for n in range(70)]


def test_nothing_is_under_way_at_first() -> None:
    box = Blackbox()
    assert (box.marks(), box.beats, box.reason) == ([], 0, "")


def test_marks_of_all_slots_are_kept_apart_and_each_is_taken_away_by_itself() -> None:
    box = Blackbox()
    box.begin(WORKER, "worker", IDS[:3])
    box.begin(LOOP, "loop", IDS[3:4])
    box.begin(LOADING, "loading")
    expected = [
        Mark(WORKER, "worker", tuple(IDS[:3])),
        Mark(LOOP, "loop", tuple(IDS[3:4])),
        Mark(LOADING, "loading", ()),
    ]
    assert box.marks() == expected
    box.end(LOOP)
    assert box.marks() == [expected[0], expected[2]]
    box.end(LOADING)
    assert box.marks() == [expected[0]]


def test_a_shorter_mark_leaves_nothing_of_a_longer_one_before_it() -> None:
    box = Blackbox()
    box.begin(WORKER, "a-long-name", IDS[:5])
    box.begin(WORKER, "short", IDS[5:6])
    assert box.marks() == [Mark(WORKER, "short", (IDS[5],))]


def test_a_name_of_64_bytes_and_64_requests_fit_and_what_is_beyond_is_cut_without_touching_the_next_slot() -> None:
    box = Blackbox()
    box.begin(LOOP, "next", IDS[:1])
    box.begin(WORKER, "n" * 64, IDS[:64])
    assert box.marks()[0] == Mark(WORKER, "n" * 64, tuple(IDS[:64]))
    box.begin(WORKER, "n" * 65, IDS[:70])
    assert box.marks() == [Mark(WORKER, "n" * 64, tuple(IDS[:64])), Mark(LOOP, "next", (IDS[0],))]


def test_a_name_that_is_cut_within_a_character_is_still_read() -> None:
    box = Blackbox()
    box.begin(WORKER, "n" * 63 + "é", [])
    assert box.marks() == [Mark(WORKER, "n" * 63 + "\ufffd", ())]


def test_the_fullest_last_slot_touches_neither_beats_nor_reason() -> None:
    box = Blackbox()
    box.beat()
    box.reason = "why"
    box.begin(LOADING, "n" * 64, IDS[:64])
    assert (box.beats, box.reason) == (1, "why")
    assert box.marks() == [Mark(LOADING, "n" * 64, tuple(IDS[:64]))]


def test_beats_are_counted_past_a_byte_and_leave_the_reason_alone() -> None:
    box = Blackbox()
    box.reason = "why"
    for _ in range(300):
        box.beat()
    assert (box.beats, box.reason) == (300, "why")


def test_a_reason_is_cut_at_300_bytes_and_a_later_one_replaces_it_whole() -> None:
    box = Blackbox()
    box.reason = "x" * 400
    assert box.reason == "x" * 300
    box.reason = "é" * 200  # 400 bytes: cut in the middle of the last
    assert box.reason == "é" * 150
    box.reason = "x" * 299 + "é"
    assert box.reason == "x" * 299 + "\ufffd"
    box.reason = "short"
    assert box.reason == "short"


def test_wiping_forgets_everything() -> None:
    box = Blackbox()
    box.begin(WORKER, "m", IDS[:1])
    box.beat()
    box.reason = "why"
    box.wipe()
    assert (box.marks(), box.beats, box.reason) == ([], 0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the supervisor forks")
def test_what_a_forked_process_marked_is_read_after_it_died() -> None:
    box = Blackbox()
    child = os.fork()
    if child == 0:
        box.begin(WORKER, "m", IDS[:2])
        box.beat()
        box.reason = "the last word"
        os._exit(1)
    os.waitpid(child, 0)
    assert (box.marks(), box.beats, box.reason) == ([Mark(WORKER, "m", tuple(IDS[:2]))], 1, "the last word")
