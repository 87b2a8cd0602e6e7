"""Nodes that fall silent are lost to the planner, whether or not the access list lets it say so."""

from collections.abc import Callable

import pytest

from s2m3.planner.node_listener import NodeListener
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.missing_documents import MissingDocuments
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BusyError, UnauthorisedError
from s2m3.schemas.messages import NodeLoad, NodeProfile, NodeState
from s2m3.schemas.settings import BrokerSettings
from tests.recorders import ManualLoop, Published, RecordedLink

STATE, LOAD = "home/node/a/state", "home/node/a/load"
READY, LOST = NodeState(state="ready", boot="1"), NodeState(state="lost", boot="1")
PROFILE = NodeProfile(
    boot="1",
    version="1",
    memory_mb=100,
    runtime_mb=0,
    gflops=1,
    latency_ms=1,
    mbps=1,
    sources=[],
    classes=[],
    keepalive_s=5,
)


class Desk:
    """A listener with the ready node `a`, and the changes that it asked to plan."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("s2m3.planner.node_listener.time.monotonic", lambda: self.now)
        self.link = RecordedLink(BrokerSettings(root="home"), "s2m3-planner", ManualLoop(), connected=True)
        self.cluster = ClusterState(shipped_catalogue())
        self.missing = MissingDocuments()
        self.changes: list[dict[str, bool]] = []
        self.listener = NodeListener(
            self.link,  # type: ignore[arg-type]
            self.cluster,
            self.missing,
            publish=lambda *_: True,
            on_change=lambda **why: self.changes.append(why),
            is_settled=lambda: True,
            is_complete=lambda: True,
            is_retaining=lambda: True,
            on_requests=lambda _: None,
        )
        self.listener.start(lambda: None)
        self.link.deliver("home/node/a/profile", PROFILE.encode())
        self.link.deliver(STATE, READY.encode())
        self.listener.look_for_silent()

    def wait(self, seconds: float) -> None:
        """Lets time pass without a heartbeat, and looks twice a second as the planner does."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.listener.look_for_silent()

    @property
    def losses(self) -> int:
        return sum(why.get("lost", False) for why in self.changes)

    @property
    def said(self) -> list[Published]:
        return [sent for sent in self.link.published if sent.message.topic == STATE]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Desk]:
    return lambda: Desk(monkeypatch)


def test_a_node_without_a_heartbeat_is_said_to_be_lost_in_a_retained_message(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.wait(7.0)
    assert made.said == []
    made.wait(0.5)
    (sent,) = made.said
    assert (sent.message.payload, sent.message.retain) == (LOST.encode(), True)
    assert made.losses == 0, "it is lost when the broker says so"
    made.link.deliver(STATE, sent.message.payload)
    assert (made.losses, set(made.cluster.nodes.lost)) == (1, {"a"})


def test_where_an_older_access_list_does_not_let_the_planner_say_so_it_plans_without_the_node_all_the_same(
    desk: Callable[[], Desk],
) -> None:
    made = desk()
    made.wait(7.5)
    (sent,) = made.said
    assert sent.on_refused is not None, "without it the broker's refusal ends the planner"
    sent.on_refused(UnauthorisedError("no"))
    assert (made.losses, set(made.cluster.nodes.lost)) == (1, {"a"})
    made.wait(30.0)
    assert len(made.said) == 1
    made.link.deliver(LOAD, NodeLoad(queues={}, keepalive_s=5).encode())
    assert made.missing.find(made.cluster) == {"node/a/state"}, "its heartbeat contradicts that"
    made.link.deliver(STATE, READY.encode())
    assert made.cluster.nodes.ready == {"a"}


def test_a_refusal_that_comes_after_the_next_process_of_the_node_means_nothing(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.wait(7.5)
    made.link.deliver(STATE, NodeState(state="ready", boot="2").encode())
    (sent,) = made.said
    assert sent.on_refused is not None
    sent.on_refused(UnauthorisedError("no"))
    assert made.cluster.nodes.ready == {"a"}


def test_while_the_queue_to_the_broker_is_full_it_is_said_at_the_next_look(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.wait(7.0)
    made.link.error = BusyError("full")
    made.wait(0.5)
    assert made.said == []
    made.wait(0.5)
    assert len(made.said) == 1
