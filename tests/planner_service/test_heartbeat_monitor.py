"""Who says nothing is lost, unless whoever listens was away itself. Pure: the test is the clock."""

from s2m3.planner.site.heartbeat_monitor import HeartbeatMonitor

THERE = {"a": 5.0, "b": 60.0}


def _looks(monitor: HeartbeatMonitor, since: float, until: float, there: dict[str, float]) -> list[tuple[float, str]]:
    found = []
    for quarter in range(round(since * 4), round(until * 4) + 1):
        found += [(quarter / 4, node) for node in monitor.look(there, quarter / 4)]
    return found


def test_a_node_that_says_nothing_is_silent_within_one_and_a_half_keepalives() -> None:
    monitor = HeartbeatMonitor()
    found = _looks(monitor, 0.0, 10.0, THERE)
    assert found
    assert found[0][1] == "a"
    assert 5.0 < found[0][0] <= 7.5
    assert {node for _, node in found} == {"a"}


def test_a_node_that_is_heard_of_is_not() -> None:
    monitor = HeartbeatMonitor()
    for second in range(0, 30, 2):
        monitor.heard("a", second)
        assert _looks(monitor, second, second + 2, THERE) == []


def test_whoever_was_frozen_itself_gives_everybody_their_full_time_again() -> None:
    monitor = HeartbeatMonitor()
    assert _looks(monitor, 0.0, 1.0, THERE) == []
    assert _looks(monitor, 100.0, 106.0, THERE) == []
    assert _looks(monitor, 106.25, 108.0, THERE)


def test_time_without_the_broker_does_not_count() -> None:
    monitor = HeartbeatMonitor()
    assert _looks(monitor, 0.0, 5.0, THERE) == []
    assert _looks(monitor, 5.25, 20.0, {}) == []
    assert _looks(monitor, 20.25, 26.0, THERE) == []


def test_each_node_has_a_time_of_its_own_and_the_last_moment_of_it_is_not_too_late() -> None:
    monitor = HeartbeatMonitor()
    there = {"a": 5.0, "b": 10.0}
    assert _looks(monitor, 0.0, 7.0, there) == []
    assert monitor.look(there, 7.01) == ["a"]
    monitor.heard("a", 7.5)
    assert _looks(monitor, 7.75, 14.0, there) == []
    assert monitor.look(there, 14.01) == ["b"]


def test_whoever_looks_a_second_late_was_not_frozen_and_whoever_looks_later_was() -> None:
    monitor = HeartbeatMonitor()
    _looks(monitor, 0.0, 6.5, THERE)
    assert monitor.look(THERE, 7.5) == ["a"]
    frozen = HeartbeatMonitor()
    _looks(frozen, 0.0, 6.5, THERE)
    assert frozen.look(THERE, 7.51) == []
