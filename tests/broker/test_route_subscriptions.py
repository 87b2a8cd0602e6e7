"""A requester hears of what it uses alone: its tasks' routes, and states and loads of the nodes that they name."""

from collections.abc import Callable

import pytest

from s2m3.broker.requests.route_subscriptions import RouteSubscriptions
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.messages import NodeLoad, NodeState, PlannerState, Replica, RouteDoc, RouteStep
from s2m3.schemas.settings import BrokerSettings
from tests.recorders import ManualLoop, RecordedLink

READY = NodeState(state="ready", boot="1")


def route(*nodes: str) -> RouteDoc:
    replicas = [Replica(node=node, ms=1) for node in nodes]
    step = RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=replicas)
    return RouteDoc(epoch=1, revision=1, model="m", answer=["y"], deadline_s=30, steps={"step": step})


class Requester:
    """Subscriptions on a link whose broker is the test; what was handed on."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.link = RecordedLink(BrokerSettings(root="home"), "client", self.loop, connected=True)
        self.heard: list[tuple[str, str, bool]] = []
        self.retained: list[str] = []
        self.followed = subscriptions(self, probe=lambda came: came())

    def route(self, task: str, *nodes: str) -> None:
        self.link.deliver(f"home/route/{task}", route(*nodes).encode())

    def state(self, node: str) -> None:
        self.link.deliver(f"home/node/{node}/state", READY.encode())

    @property
    def filters(self) -> set[str]:
        return set(self.link.filters) - {"home/planner/state"}

    @property
    def roll_calls(self) -> int:
        return sum(1 for published in self.link.published if published.message.topic == "home/rollcall")


def subscriptions(of: Requester, probe: Callable[[Callable[[], None]], None]) -> RouteSubscriptions:
    made = RouteSubscriptions(
        of.link,  # type: ignore[arg-type]
        of.loop,  # type: ignore[arg-type]
        on_route=lambda task, doc: of.heard.append(("route", task, doc is not None)),
        on_state=lambda node, state: of.heard.append(("state", node, state is not None)),
        on_load=lambda node, load: of.heard.append(("load", node, load is not None)),
        on_retained=of.retained.append,
        probe=probe,
    )
    made.start()
    return made


@pytest.fixture
def made() -> Requester:
    return Requester()


def test_only_what_a_task_uses_is_subscribed_to(made: Requester) -> None:
    assert made.filters == set()
    made.followed.follow("porch")
    made.followed.follow("porch")
    assert made.filters == {"home/route/porch"}
    made.route("porch", "a", "b")
    nodes = {f"home/node/{node}/{kind}" for node in ("a", "b") for kind in ("state", "load")}
    assert made.filters == {"home/route/porch"} | nodes


def test_a_route_is_handed_on_once_the_states_of_its_nodes_are_known(made: Requester) -> None:
    made.followed.follow("porch")
    made.route("porch", "a", "b")
    made.state("a")
    assert made.heard == [("state", "a", True)]
    made.state("b")
    assert made.heard[1:] == [("state", "b", True), ("route", "porch", True)]
    made.route("porch", "b")
    assert ("route", "porch", True) in made.heard[3:]


def test_a_node_whose_state_nobody_retains_does_not_keep_a_route_back_for_ever(made: Requester) -> None:
    made.followed.follow("porch")
    made.route("porch", "a")
    made.loop.advance(1.0)
    assert made.heard == [("route", "porch", True)]


def test_of_two_routes_the_newer_one_is_handed_on(made: Requester) -> None:
    made.followed.follow("porch")
    made.route("porch", "a")
    made.route("porch", "b")
    made.state("b")
    made.loop.advance(1.0)
    assert [heard for heard in made.heard if heard[0] == "route"] == [("route", "porch", True)]
    assert made.filters == {"home/route/porch", "home/node/b/state", "home/node/b/load"}


def test_a_node_is_followed_as_long_as_any_route_names_it(made: Requester) -> None:
    for task in ("porch", "attic"):
        made.followed.follow(task)
        made.route(task, "a")
    made.state("a")
    made.link.deliver("home/node/a/load", NodeLoad(queues={}).encode())
    assert made.heard[-1] == ("load", "a", True)
    made.followed.unfollow("porch")
    assert made.filters == {"home/route/attic", "home/node/a/state", "home/node/a/load"}
    made.followed.unfollow("attic")
    assert made.filters == set()
    assert made.heard[-2:] == [("state", "a", False), ("load", "a", False)]  # what was known of it is out of date soon


def test_a_node_that_the_owner_watches_is_heard_of_whether_or_not_a_route_names_it(made: Requester) -> None:
    made.followed.watch("a")
    made.followed.watch("a")
    assert made.filters == {"home/node/a/state"}
    made.state("a")
    made.followed.follow("porch")
    made.route("porch", "a")
    assert made.heard == [("state", "a", True), ("route", "porch", True)]
    assert made.filters == {"home/route/porch", "home/node/a/state", "home/node/a/load"}
    made.route("porch", "b")
    made.route("porch", "a")
    assert made.heard[-3:] == [("route", "porch", True), ("state", "b", False), ("load", "b", False)]  # a stays


def test_a_node_that_is_not_watched_any_more_is_heard_of_while_a_route_names_it(made: Requester) -> None:
    made.followed.follow("porch")
    made.route("porch", "a")
    made.followed.watch("a")
    made.followed.unwatch("a")
    assert "home/node/a/state" in made.filters
    made.followed.watch("b")
    made.state("b")
    made.followed.unwatch("b")
    assert (made.heard[-1], "home/node/b/state" in made.filters) == (("state", "b", False), False)


def test_a_task_is_found_as_soon_as_its_route_has_come(made: Requester) -> None:
    found: list[bool] = []
    made.followed.follow("porch")
    made.followed.find("porch", found.append)
    assert found == []
    made.route("porch", "a")
    made.followed.find("porch", found.append)
    assert found == [True, True]


def test_a_task_is_missed_as_soon_as_everything_else_that_is_retained_has_come(made: Requester) -> None:
    found: list[bool] = []
    state = PlannerState(state="online", epoch=1).encode()
    made.link.deliver("home/planner/state", state, retain=True)
    made.followed.follow("porch")
    made.followed.find("porch", found.append)
    assert found == []
    made.link.connect()  # the SUBACK, after which a broker sends what it retains
    assert found == [False], "no time has passed"
    assert made.retained == ["porch"]
    for name in ("porch", "My Task"):
        made.followed.find(name, found.append)
    assert found == [False] * 3


def test_a_task_is_missed_when_its_subscription_ends(made: Requester) -> None:
    found: list[bool] = []
    made.followed.follow("porch")
    made.followed.find("porch", found.append)
    made.followed.unfollow("porch")
    assert found == [False]


def test_a_name_that_no_task_can_have_is_not_subscribed_to(made: Requester) -> None:
    for name in ("", "+", "#", "a/b", "My Task"):
        made.followed.follow(name)
    made.followed.unfollow("+")
    assert made.filters == set()


def test_a_broker_that_retains_the_planner_is_believed_when_a_task_has_no_route(made: Requester) -> None:
    online = PlannerState(state="online", epoch=1).encode()
    made.link.deliver("home/planner/state", online, retain=True)
    made.followed.follow("porch")
    made.loop.advance(60.0)
    assert made.roll_calls == 0


def test_what_a_clustered_broker_does_not_give_is_asked_for(made: Requester) -> None:
    made.followed.follow("porch")
    made.loop.advance(1.0)
    assert made.roll_calls == 1
    made.link.deliver("home/planner/state", PlannerState(state="online", epoch=1).encode())  # not retained: an answer
    made.route("porch", "a")
    made.followed.follow("attic")
    made.loop.advance(1.0)
    assert made.roll_calls == 1  # not again at once; others ask too
    made.followed.unfollow("attic")
    made.state("a")
    made.loop.advance(1.0)
    assert made.loop.waiting == []


def test_where_nothing_is_retained_an_answer_to_a_roll_call_is_waited_for(made: Requester) -> None:
    made.followed.follow("porch")
    made.link.connect()  # the subscriptions are confirmed, and our own message came back
    made.loop.advance(5.0)
    assert made.retained == []
    made.loop.advance(1.0)
    assert made.retained == ["porch"]


def test_a_login_that_may_not_ask_does_not_wait(made: Requester) -> None:
    made.followed.follow("porch")
    made.link.connect()
    made.loop.advance(1.0)
    (asked,) = [found for found in made.link.published if found.message.topic == "home/rollcall"]
    assert asked.on_refused is not None
    asked.on_refused(UnauthorisedError("no"))
    assert made.retained == ["porch"]
    made.followed.follow("attic")
    made.link.connect()
    assert made.retained == ["porch", "attic"]


def test_a_list_of_all_tasks_follows_those_that_were_asked_too(made: Requester) -> None:
    made.followed.list_all(lambda: None)
    made.link.connect()
    for task in ("porch", "attic"):
        made.route(task, "a")
    made.followed.follow("porch")
    made.route("porch", "b")
    assert {task: doc.nodes for task, doc in made.followed.listed.items()} == {"porch": {"b"}, "attic": {"a"}}
    for task in ("porch", "attic"):
        made.link.deliver(f"home/route/{task}", b"")
    assert made.followed.listed == {}


def reconnected(made: Requester, *, is_retaining: bool = True) -> None:
    """The connection goes and comes again, to a broker that may have kept what it retained."""
    made.followed.link_down()
    if is_retaining:
        state = PlannerState(state="online", epoch=1).encode()
        made.link.deliver("home/planner/state", state, retain=True)
    made.followed.link_up()


def test_a_task_that_was_removed_while_the_connection_was_down_is_gone(made: Requester) -> None:
    for task in ("porch", "attic"):
        made.followed.follow(task)
        made.route(task, "a")
    made.state("a")
    reconnected(made)
    made.route("attic", "a")
    made.heard.clear()
    made.loop.advance(5.0)
    assert (made.heard, made.roll_calls) == ([], 1)
    made.loop.advance(6.0)
    assert made.heard == [("route", "porch", False)]
    assert made.filters == {"home/route/porch", "home/route/attic", "home/node/a/state", "home/node/a/load"}
    made.route("porch", "a")  # it is added again
    assert made.heard[1:] == [("route", "porch", True)]


def test_a_route_that_comes_when_it_is_asked_for_by_name_stays() -> None:
    made = Requester()
    back: list[Callable[[], None]] = []
    made.followed = subscriptions(made, probe=back.append)
    made.followed.follow("porch")
    made.route("porch", "a")
    made.state("a")
    reconnected(made)
    made.heard.clear()
    made.loop.advance(5.0)
    back.pop()()
    made.route("porch", "a")
    back.pop()()
    made.loop.advance(60.0)
    assert made.heard == [("route", "porch", True)]
    assert (back, made.roll_calls) == ([], 0)


def test_a_route_that_the_planner_tells_in_answer_to_a_roll_call_stays(made: Requester) -> None:
    """This broker of a cluster retains what was said to it before the planner went to another one."""
    made.followed.follow("porch")
    made.route("porch", "a")
    made.state("a")
    reconnected(made)
    made.heard.clear()
    made.loop.advance(6.0)
    assert made.roll_calls == 1
    made.route("porch", "a")
    made.loop.advance(60.0)
    assert made.heard == [("route", "porch", True)]


def test_a_broker_that_forgot_everything_removes_no_task(made: Requester) -> None:
    """The planner's state comes, but it is not retained: the planner publishes all its routes again."""
    made.followed.follow("porch")
    made.route("porch", "a")
    made.state("a")
    made.heard.clear()
    reconnected(made, is_retaining=False)
    made.link.deliver("home/planner/state", PlannerState(state="online", epoch=1).encode())
    made.loop.advance(60.0)
    assert made.heard == []


def test_a_listed_task_that_was_removed_while_the_connection_was_down_is_not_listed(made: Requester) -> None:
    made.followed.list_all(lambda: None)
    made.link.connect()
    for number in range(120):
        made.route(f"t{number}", "a")
    reconnected(made)
    for number in range(10):
        made.route(f"t{number}", "a")
    made.loop.advance(11.0)
    assert made.followed.listed.keys() == {f"t{number}" for number in range(10)}
    assert made.filters == {"home/route/+"}


def test_what_was_asked_on_an_earlier_connection_counts_nothing() -> None:
    made = Requester()
    back: list[Callable[[], None]] = []
    made.followed = subscriptions(made, probe=back.append)
    made.followed.follow("porch")
    made.route("porch", "a")
    made.state("a")
    reconnected(made)
    made.heard.clear()
    made.loop.advance(5.0)
    back.pop()()
    reconnected(made)
    back.pop()()
    assert made.heard == []
    made.loop.advance(5.0)
    back.pop()()
    back.pop()()
    made.loop.advance(6.0)
    assert made.heard[0] == ("route", "porch", False)
