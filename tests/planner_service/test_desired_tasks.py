"""A task that was removed stays removed; what is said again is what was said, to the byte."""

from s2m3.planner.site.desired_tasks import DesiredTasks


def make(*tasks: str) -> tuple[DesiredTasks, list[tuple[str, bytes]]]:
    said: list[tuple[str, bytes]] = []
    desired = DesiredTasks(publish=lambda task, payload: said.append((task, payload)))
    for task in tasks:
        assert desired.heard(task, task.encode())
    return desired, said


def test_what_is_said_again_is_what_was_said() -> None:
    desired, _ = make("one")
    desired.heard("one", b'{"model":"m","a-newer-key":1}')
    assert desired.payloads == {"one": b'{"model":"m","a-newer-key":1}'}


def test_what_the_broker_does_not_name_again_was_removed_meanwhile() -> None:
    desired, _ = make("one", "two")
    desired.on_connected()
    desired.heard("two", b"two")
    assert desired.take_removed() == ["one"]
    assert set(desired.payloads) == {"two"}
    assert desired.take_removed() == []


def test_where_all_are_named_again_none_was_removed() -> None:
    desired, _ = make("one")
    desired.on_connected()
    desired.heard("one", b"one")
    assert desired.take_removed() == []


def test_a_task_removed_before_our_own_word_reached_the_broker_is_cleared_again() -> None:
    desired, said = make("one")
    desired.on_repeated("one")
    assert desired.heard("one", b"")
    assert not desired.heard("one", b"one")
    assert said == [("one", b"")]
    assert desired.payloads == {}


def test_a_task_changed_before_our_own_word_reached_the_broker_is_said_as_it_was_changed() -> None:
    desired, said = make("one")
    desired.on_repeated("one")
    assert desired.heard("one", b"changed")
    assert not desired.heard("one", b"one")
    assert said == [("one", b"changed")]
    assert desired.heard("one", b"changed")
    assert desired.payloads == {"one": b"changed"}


def test_our_own_word_that_comes_back_alone_changes_nothing() -> None:
    desired, said = make("one")
    for _ in range(2):
        desired.on_repeated("one")
    assert desired.heard("one", b"one")
    assert desired.heard("one", b"one")
    assert desired.heard("one", b"changed")
    assert (said, desired.payloads) == ([], {"one": b"changed"})


def test_a_task_removed_after_our_own_word_may_be_added_again() -> None:
    desired, said = make("one")
    desired.on_repeated("one")
    assert desired.heard("one", b"one")
    assert desired.heard("one", b"")
    assert desired.heard("one", b"one")
    assert said == []


def test_another_connection_has_nothing_of_ours_under_way() -> None:
    desired, said = make("one")
    desired.on_repeated("one")
    desired.heard("one", b"")
    desired.on_connected()
    assert desired.heard("one", b"one")
    assert said == []


def test_each_of_our_own_words_under_way_is_awaited_before_another_counts() -> None:
    desired, said = make("one")
    desired.on_repeated("one")
    desired.on_repeated("one")
    assert desired.heard("one", b"")
    assert not desired.heard("one", b"one")
    assert not desired.heard("one", b"one"), "the second of ours has overtaken it too"
    assert said == [("one", b""), ("one", b"")]
    assert desired.heard("one", b"one"), "that is somebody else's"


def test_once_all_of_ours_are_back_no_earlier_news_is_said_again() -> None:
    desired, said = make("one")
    desired.on_repeated("one")
    desired.heard("one", b"changed")
    desired.heard("one", b"one")
    desired.heard("one", b"changed")
    desired.on_repeated("one")
    assert desired.heard("one", b"changed")
    assert said == [("one", b"changed")]


def test_a_task_that_was_never_said_may_be_removed() -> None:
    desired, said = make("one")
    assert desired.heard("other", b"")
    assert (said, desired.payloads) == ([], {"one": b"one"})
