"""The order of waiting items: each task, and each requester of a task, gets its share of the time."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.agents.serving.fair_queue import FairQueue, Flow, Shares


@dataclass(eq=False)
class Waiting:
    flow: Flow
    arrived: float = 0.0
    dropped: bool = False


def queue(shares: Shares | None = None, **counts: int) -> FairQueue[Waiting]:
    """A queue with so many items of each task, of one requester."""
    made: FairQueue[Waiting] = FairQueue(shares or Shares())
    for task, count in counts.items():
        for _ in range(count):
            made.append(Waiting((task, "r")))
    return made


def test_items_of_one_flow_keep_their_order() -> None:
    made: FairQueue[Waiting] = FairQueue(Shares())
    items = [Waiting(("t", "r"), float(n)) for n in range(5)]
    for item in items:
        made.append(item)
    assert [made.take(1.0) for _ in items] == items
    assert len(made) == 0


def test_41_a_task_does_not_wait_for_what_others_have_queued() -> None:
    made = queue(flood=1_000)
    made.take(5.0)
    made.append(Waiting(("other", "r")))
    assert "other" in [made.take(5.0).flow[0] for _ in range(2)]


def test_41_a_requester_does_not_wait_for_what_others_of_its_task_have_queued() -> None:
    made: FairQueue[Waiting] = FairQueue(Shares())
    for _ in range(100):
        made.append(Waiting(("t", "greedy")))
    made.take(5.0)
    made.append(Waiting(("t", "modest")))
    assert "modest" in [made.take(5.0).flow[1] for _ in range(2)]


def test_41_many_requesters_of_one_task_have_together_no_more_than_one_of_another() -> None:
    made: FairQueue[Waiting] = FairQueue(Shares())
    for n in range(150):
        for _ in range(10):
            made.append(Waiting(("flood", f"client-{n}")))
    for _ in range(100):
        made.append(Waiting(("other", "r")))
    assert Counter(made.take(5.0).flow[0] for _ in range(100)) == {"flood": 50, "other": 50}


def test_41_time_is_shared_not_the_number_of_items() -> None:
    shares = Shares()
    made = queue(shares, slow=100, quick=100)
    taken: Counter[str] = Counter()
    for _ in range(44):
        item = made.take(1.0)
        taken[item.flow[0]] += 1
        shares.charge(item.flow, {"slow": 9.0, "quick": 0.0}[item.flow[0]])
    assert taken["slow"] * 10 == pytest.approx(taken["quick"], abs=10)


def test_41_a_task_whose_last_step_runs_at_once_gets_no_more_time_than_another() -> None:
    shares = Shares()
    made = queue(shares, long=100, short=1_000)
    spent: Counter[str] = Counter()
    for _ in range(550):
        item = made.take({"long": 100.0, "short": 10.0}[made.first().flow[0]])
        spent[item.flow[0]] += 100 if item.flow[0] == "long" else 10
        if item.flow[0] == "long":
            shares.charge(item.flow, 1.0)  # a light module after it, in the submitter's thread
    assert spent["long"] == pytest.approx(spent["short"], abs=200)


def test_41_the_share_is_of_all_modules_together() -> None:
    shares = Shares()
    one, other = queue(shares, flood=100), queue(shares, modest=1)
    one.take(50.0)
    assert other.turn() < one.turn()


def test_a_task_that_had_nothing_to_do_saves_nothing_up() -> None:
    made = queue(busy=1_000)
    for _ in range(500):
        made.take(5.0)
    for _ in range(100):
        made.append(Waiting(("late", "r")))
    assert Counter(made.take(5.0).flow[0] for _ in range(100)) == {"busy": 50, "late": 50}


def test_41_in_a_full_queue_the_newest_item_of_the_longest_flow_makes_room() -> None:
    made: FairQueue[Waiting] = FairQueue(Shares())
    items = [Waiting(("flood", requester), n) for n, requester in enumerate(("a", "b", "b", "b", "a"))]
    for item in items:
        made.append(item)
    assert made.make_room(("other", "r")) is items[3]
    assert len(made) == 4


def test_41_who_has_as_much_as_the_others_makes_no_room_for_itself() -> None:
    assert queue(one=3).make_room(("one", "r")) is None
    assert queue(one=3, other=3).make_room(("one", "r")) is None
    assert queue(one=3, other=2).make_room(("other", "r")) is None


def test_41_within_a_task_a_modest_requester_gets_the_place_of_a_greedy_one() -> None:
    made: FairQueue[Waiting] = FairQueue(Shares())
    for _ in range(3):
        made.append(Waiting(("t", "greedy")))
    evicted = made.make_room(("t", "modest"))
    assert evicted is not None
    assert evicted.flow == ("t", "greedy")


def flows(**counts: int) -> FairQueue[Waiting]:
    """A queue with so many items of each requester of the task `t`."""
    made: FairQueue[Waiting] = FairQueue(Shares())
    for requester, count in counts.items():
        for _ in range(count):
            made.append(Waiting(("t", requester)))
    return made


def test_41_the_task_with_the_most_items_makes_room_whatever_its_name() -> None:
    evicted = queue(z=2, a=5, m=3).make_room(("other", "r"))
    assert evicted is not None
    assert evicted.flow == ("a", "r")


@pytest.mark.parametrize("asking", [("other", "r"), ("t", "new")])
def test_41_the_requester_with_the_most_items_makes_room_whatever_its_name(asking: Flow) -> None:
    evicted = flows(z=1, a=4, m=2).make_room(asking)
    assert evicted is not None
    assert evicted.flow == ("t", "a")


def test_41_two_items_make_room_for_a_task_without_any_and_one_item_does_not() -> None:
    assert queue(one=2).make_room(("other", "r")) is not None
    assert queue(one=1).make_room(("other", "r")) is None


def test_41_room_is_made_where_two_items_more_wait() -> None:
    assert flows(a=3, b=1).make_room(("t", "b")) is not None
    assert flows(a=2, b=1).make_room(("t", "b")) is None


def test_41_flows_begin_at_the_time_of_what_is_served() -> None:
    shares = Shares()
    assert shares.start_of("t") == shares.start_within(("t", "r")) == 0.0
    shares.serve(("t", "r"), 10.0)
    assert shares.start_of("new") == shares.start_within(("t", "new")) == 0.0
    assert shares.start_of("t") == shares.start_within(("t", "r")) == 10.0
    shares.serve(("t", "r"), 10.0)
    assert shares.start_of("new") == shares.start_within(("t", "new")) == 10.0


def test_of_more_than_256_requesters_the_half_with_least_time_is_forgotten() -> None:
    shares = Shares()
    for n in range(256):
        shares.charge(("t", f"r{n}"), n + 1.0)
    assert shares.size == 1 + 256
    shares.charge(("t", "r256"), 257.0)
    assert shares.start_within(("t", "new")) == 129.0
    assert shares.size == 1 + 128


def test_of_more_than_257_tasks_the_requesters_of_the_oldest_are_forgotten() -> None:
    shares = Shares()
    for n in range(257):
        shares.charge((f"t{n}", "r"), 1.0)
    assert shares.start_within(("t0", "r")) == 1.0
    shares.charge(("t257", "r"), 1.0)
    assert shares.start_within(("t0", "r")) == 0.0
    assert shares.start_within(("t1", "r")) == 1.0
    shares.charge(("t257", "r"), 1.0)
    assert shares.start_within(("t1", "r")) == 1.0


def test_dropped_items_are_removed_and_the_others_stay() -> None:
    made = queue(one=3, other=1)
    items = list(made)
    items[0].dropped = items[3].dropped = True
    made.remove_dropped()
    assert list(made) == items[1:3]
    assert len(made) == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0.1, 100.0)), max_size=60))
def test_every_item_is_taken_once_and_each_flow_in_its_order(flows: list[tuple[str, str, float]]) -> None:
    made: FairQueue[Waiting] = FairQueue(Shares())
    items = [Waiting((task, requester), float(n)) for n, (task, requester, _) in enumerate(flows)]
    for item in items:
        made.append(item)
    taken = []
    for *_, ms in flows:
        assert made.first() is made.first()
        taken.append(made.take(ms))
    assert sorted(item.arrived for item in taken) == [item.arrived for item in items]
    for flow in {item.flow for item in items}:
        of_flow = [item.arrived for item in taken if item.flow == flow]
        assert of_flow == sorted(of_flow)


def test_flows_that_are_gone_are_forgotten() -> None:
    """Any client may invent names of tasks and inboxes."""
    shares = Shares()
    made: FairQueue[Waiting] = FairQueue(shares)
    for n in range(5_000):
        made.append(Waiting((f"task-{n}", f"inbox-{n}")))
        made.take(1.0)
    assert shares.size < 1_500
