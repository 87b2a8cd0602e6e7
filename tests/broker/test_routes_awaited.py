"""Since when a task's route would have come: the later of the connection and the broker's confirmation."""

import pytest

from s2m3.broker.requests.unknown_tasks import RoutesAwaited


def test_without_a_connection_no_route_could_come() -> None:
    assert RoutesAwaited().since("t", None) is None


def test_a_task_whose_subscription_is_not_confirmed_is_awaited() -> None:
    awaited = RoutesAwaited()
    awaited.subscribed("t")
    assert awaited.since("t", 1.0) is None
    assert awaited.since("other", 1.0) == 1.0
    awaited.confirmed("t", 5.0)
    assert awaited.since("t", 1.0) == 5.0


@pytest.mark.parametrize(("up_since", "since"), [(4.0, 5.0), (5.0, 5.0), (6.0, 6.0)])
def test_a_route_could_come_since_the_later_of_connection_and_confirmation(up_since: float, since: float) -> None:
    awaited = RoutesAwaited()
    awaited.confirmed("t", 5.0)
    assert awaited.since("t", up_since) == since


def test_a_subscription_that_has_ended_is_forgotten_confirmed_or_not() -> None:
    awaited = RoutesAwaited()
    awaited.confirmed("t", 5.0)
    awaited.subscribed("u")
    for task in ("t", "u", "never asked"):
        awaited.forget(task)
    assert (awaited.since("t", 1.0), awaited.since("u", 1.0)) == (1.0, 1.0)
