"""Which message of a flood is asked: the newest of each topic, one at a time, no more often than wanted."""

from hypothesis import given
from hypothesis import strategies as st

from s2m3.bindings.gate import MOST_WAITING, Allowance, Gate


def test_of_a_flood_the_newest_is_asked_and_the_older_are_given_up() -> None:
    gate: Gate[bytes] = Gate(every_s=1.0)
    assert gate.offer("cam", b"1", 0.0)
    assert gate.take(0.0) == [("cam", b"1")]
    assert gate.offer("cam", b"2", 0.2)
    assert not gate.offer("cam", b"3", 0.4)
    assert gate.take(0.4) == []
    gate.done("cam")
    assert gate.take(0.9) == []
    assert gate.next_due() == 1.0
    assert gate.take(1.0) == [("cam", b"3")]


def test_one_of_a_topic_is_under_way_however_long_it_takes() -> None:
    gate: Gate[bytes] = Gate(every_s=0.0)
    gate.offer("cam", b"1", 0.0)
    assert len(gate.take(0.0)) == 1
    gate.offer("cam", b"2", 50.0)
    assert gate.take(50.0) == []
    assert gate.next_due() is None
    gate.done("cam")
    assert gate.take(50.0) == [("cam", b"2")]


def test_a_busy_camera_does_not_keep_a_quiet_one_waiting() -> None:
    gate: Gate[bytes] = Gate(every_s=0.0)
    for i in range(20):
        gate.offer("busy", str(i).encode(), float(i))
        gate.offer("quiet", b"q", float(i)) if i == 3 else None
        for topic, _ in gate.take(float(i)):
            gate.done(topic)
            if topic == "quiet":
                assert i == 3
                return
    raise AssertionError("quiet was never asked")


def test_topics_and_bytes_are_bounded() -> None:
    gate: Gate[bytes] = Gate(every_s=1.0)
    taken = [gate.offer(f"t/{i}", b"x", 0.0) for i in range(100)]
    assert taken.count(True) == 64
    assert len(gate.take(0.0)) == 8
    large: Gate[bytes] = Gate(every_s=1.0)
    kept = [large.offer(f"t/{i}", bytes(30_000_000), 0.0) for i in range(4)]
    assert kept == [True, True, False, False]


def test_a_topic_that_has_gone_quiet_makes_room() -> None:
    gate: Gate[bytes] = Gate(every_s=1.0)
    for i in range(64):
        gate.offer(f"t/{i}", b"x", 0.0)
    for topic, _ in gate.take(0.0):
        gate.done(topic)
    assert not gate.offer("new", b"x", 0.5)
    assert gate.offer("new", b"x", 1.5)


def test_2_each_event_is_asked_in_order_one_at_a_time() -> None:
    gate: Gate[bytes] = Gate(every_s=0.0, each=True)
    assert all(gate.offer("button", b"%d" % i, 0.0) for i in range(3))
    assert gate.take(0.0) == [("button", b"0")]
    assert gate.take(0.0) == []
    for i in (1, 2):
        gate.done("button")
        assert gate.take(0.0) == [("button", b"%d" % i)]
    gate.done("button")
    assert gate.take(0.0) == []


def test_2_a_pause_between_events_loses_none() -> None:
    gate: Gate[bytes] = Gate(every_s=1.0, each=True)
    for i in range(2):
        gate.offer("button", b"%d" % i, 0.0)
    gate.take(0.0)
    gate.done("button")
    assert gate.take(0.5) == []
    assert gate.next_due() == 1.0
    assert gate.take(1.0) == [("button", b"1")]


def test_2_what_is_over_the_bound_is_given_up_and_the_older_stay() -> None:
    gate: Gate[bytes] = Gate(every_s=0.0, each=True)
    taken = [gate.offer(f"button/{i % 2}", b"%d" % i, 0.0) for i in range(MOST_WAITING + 5)]
    assert taken == [True] * MOST_WAITING + [False] * 5
    assert gate.take(0.0) == [("button/0", b"0"), ("button/1", b"1")]
    assert gate.offer("button/0", b"again", 0.0)
    large: Gate[bytes] = Gate(every_s=0.0, each=True)
    assert [large.offer("t", bytes(30_000_000), 0.0) for _ in range(3)] == [True, True, False]
    large.take(0.0)
    assert large.offer("t", bytes(30_000_000), 0.0)


def test_errors_are_told_a_few_at_once_and_then_at_a_rate() -> None:
    allowance = Allowance(3, 1.0)
    assert [allowance.take(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take(2.0) for _ in range(3)] == [True, True, False]


STEPS = st.lists(st.tuples(st.sampled_from(["offer", "take", "done"]), st.sampled_from("abc"), st.floats(0, 3)))


@given(STEPS, st.sampled_from([0.0, 1.0, 2.5]))
def test_in_any_order_of_events_a_topic_is_asked_at_the_rate_and_with_its_newest(
    steps: list[tuple[str, str, float]], every: float
) -> None:
    gate: Gate[bytes] = Gate(every)
    now, number = 0.0, 0
    newest: dict[str, int] = {}
    started: dict[str, float] = {}
    under_way: set[str] = set()
    for what, topic, wait in steps:
        now += wait
        if what == "offer":
            number += 1
            newest[topic] = number
            gate.offer(topic, str(number).encode(), now)
        elif what == "done":
            gate.done(topic)
            under_way.discard(topic)
        else:
            due = gate.next_due()
            taken = gate.take(now)
            assert bool(taken) == (due is not None and due <= now)
            for name, payload in taken:
                assert name not in under_way
                assert now - started.get(name, -1e9) >= every - 1e-9
                assert int(payload) == newest.pop(name)
                started[name] = now
                under_way.add(name)
