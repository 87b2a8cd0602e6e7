"""Documents that were removed while the connection was down: what has not arrived again by the end is dropped."""

from s2m3.unconfirmed import Unconfirmed


def test_what_has_not_arrived_again_is_dropped_and_nothing_else() -> None:
    tasks, plans = {"stays": 1, "goes": 2, "cleared": 3}, {"goes": 4}
    unconfirmed = Unconfirmed()
    unconfirmed.link_down([tasks, plans])
    unconfirmed.heard(tasks, "stays")
    del tasks["cleared"]
    unconfirmed.heard(tasks, "new")
    tasks["new"] = 5
    unconfirmed.drop()
    assert (tasks, plans) == ({"stays": 1, "new": 5}, {})


def test_what_arrived_since_the_last_loss_counts_and_a_second_end_drops_nothing() -> None:
    tasks, others = {"a": 1}, {"a": 1}
    unconfirmed = Unconfirmed()
    unconfirmed.link_down([tasks])
    unconfirmed.heard(tasks, "a")
    unconfirmed.heard(others, "a")
    unconfirmed.link_down([tasks])
    unconfirmed.drop()
    assert (tasks, others) == ({}, {"a": 1})
    tasks["a"] = 1
    unconfirmed.drop()
    assert tasks == {"a": 1}
