"""Who says nothing is lost, unless whoever listens was away itself. Pure: the test is the clock."""

from planner.silence import Silence

THERE = {"a": 5.0, "b": 60.0}


def _looks(silence: Silence, since: float, until: float, there: dict[str, float]) -> list[tuple[float, str]]:
    found = []
    for quarter in range(round(since * 4), round(until * 4) + 1):
        found += [(quarter / 4, node) for node in silence.look(there, quarter / 4)]
    return found


def test_a_node_that_says_nothing_is_silent_within_one_and_a_half_keepalives() -> None:
    silence = Silence()
    found = _looks(silence, 0.0, 10.0, THERE)
    assert found
    assert found[0][1] == "a"
    assert 5.0 < found[0][0] <= 7.5
    assert {node for _, node in found} == {"a"}


def test_a_node_that_is_heard_of_is_not() -> None:
    silence = Silence()
    for second in range(0, 30, 2):
        silence.heard("a", second)
        assert _looks(silence, second, second + 2, THERE) == []


def test_whoever_was_frozen_itself_gives_everybody_their_full_time_again() -> None:
    silence = Silence()
    assert _looks(silence, 0.0, 1.0, THERE) == []
    assert _looks(silence, 100.0, 106.0, THERE) == []
    assert _looks(silence, 106.25, 108.0, THERE)


def test_time_without_the_broker_does_not_count() -> None:
    silence = Silence()
    assert _looks(silence, 0.0, 5.0, THERE) == []
    assert _looks(silence, 5.25, 20.0, {}) == []
    assert _looks(silence, 20.25, 26.0, THERE) == []
