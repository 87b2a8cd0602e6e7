"""What a node tells of itself: all of it on each connect, changes worth telling in between, its load while busy."""

from typing import Any

import pytest

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device
from s2m3.agents.presence import Presence
from s2m3.agents.resources import Resources
from s2m3.agents.speed import LinkSpeed
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas.errors import BusyError
from s2m3.schemas.messages import Event, ModuleReport, NodeLoad, NodeProfile, NodeState, Reported
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.work import Timing
from tests.recorders import ManualLoop, RecordedLink

STATE, PROFILE, REPORTED, LOAD = (f"home/node/a/{name}" for name in ("state", "profile", "reported", "load"))


class Told:
    """A node's presence, and what it published."""

    def __init__(self) -> None:
        self.link = RecordedLink(BrokerSettings(root="home"), "s2m3-node-home-a", ManualLoop())
        self.broker = ""
        self.presence = Presence(self.link, "a", "boot-1", lambda: self.broker)  # type: ignore[arg-type]

    def introduce(self, *, with_torch: bool = False, dtype: Any = "float32") -> None:
        self.presence.introduce(
            resources=Resources(Device(), 500.0, 500.0, 1, {"float32": 20.0}, dtype),
            runtime_mb=60.0,
            keepalive_s=5.0,
            link_speed=LinkSpeed(2.0, 90.0),
            with_torch=with_torch,
            gateway=True,
            most_gateways=7,
            sources=CheckpointSources(),
        )

    def all(self) -> list[Outgoing]:
        """Returns what was published since the last look."""
        found = [sent.message for sent in self.link.published]
        self.link.published.clear()
        return found

    def topics(self) -> list[str]:
        return [message.topic for message in self.all()]

    def profile(self) -> NodeProfile:
        return NodeProfile.model_validate_json(self.link.at(PROFILE)[-1])


@pytest.fixture
def told() -> Told:
    return Told()


def test_nothing_is_told_before_the_node_is_introduced(told: Told) -> None:
    told.presence.tell_all()
    told.presence.tell_state()
    told.presence.offer({"checkpoint"})
    told.presence.change_state("draining")
    assert told.topics() == []
    assert told.presence.state == "draining"


def test_an_introduction_tells_everything_retained_and_the_state_last(told: Told) -> None:
    told.introduce()
    messages = told.all()
    assert [message.topic for message in messages] == [PROFILE, REPORTED, STATE]
    assert all((message.retain, message.qos) == (True, 1) for message in messages)
    state = NodeState.model_validate_json(messages[2].payload)
    assert (state.state, state.boot, state.protocol) == ("ready", "boot-1", PROTOCOL)
    assert Reported.model_validate_json(messages[1].payload) == Reported(boot="boot-1")


def test_the_profile_says_what_the_device_has(told: Told) -> None:
    told.introduce(dtype="bfloat16")
    profile = told.profile()
    assert (profile.boot, profile.memory_mb, profile.runtime_mb, profile.gflops) == ("boot-1", 500.0, 60.0, 20.0)
    assert (profile.latency_ms, profile.mbps, profile.keepalive_s) == (2.0, 90.0, 5.0)
    assert (profile.gateway, profile.most_gateways, profile.dtype) == (True, 7, "bfloat16")


def test_a_node_without_room_for_torch_offers_only_what_needs_none(told: Told) -> None:
    told.introduce(with_torch=False)
    without = told.profile()
    told.introduce(with_torch=True)
    with_torch = told.profile()
    assert "noop-encoder" in without.classes
    assert "sentence-encoder" not in without.classes
    assert "image-encoder" not in without.classes
    assert set(without.classes) <= set(with_torch.classes)
    assert {"image-encoder", "text-generator"} <= set(with_torch.classes)
    assert without.sources == sorted(set(without.sources))


def test_sources_that_tasks_name_are_offered_once_and_stay(told: Told) -> None:
    told.presence.offer({"early"})
    told.introduce()
    assert "early" in told.profile().sources
    told.all()
    told.presence.offer({"late", "early"})
    assert {"early", "late"} <= set(told.profile().sources)
    assert told.topics() == [PROFILE]
    told.presence.offer({"late"})
    assert told.topics() == []


def test_a_new_state_is_told_and_told_again_with_all_the_rest(told: Told) -> None:
    told.introduce()
    told.all()
    told.presence.change_state("draining")
    (message,) = told.all()
    assert (message.topic, NodeState.model_validate_json(message.payload).state) == (STATE, "draining")
    told.presence.tell_all()
    assert NodeState.model_validate_json(told.link.at(STATE)[-1]).state == "draining"


def test_an_order_to_drain_is_taken_back_and_the_end_of_the_agent_is_not(told: Told) -> None:
    told.introduce()
    told.all()
    told.presence.undrain()
    assert told.all() == [], "it takes work already"
    told.presence.drain()
    told.presence.drain()
    told.presence.undrain()
    states = [NodeState.model_validate_json(message.payload).state for message in told.all()]
    assert states == ["draining", "ready"]
    told.presence.drain()
    told.presence.drain(leaves=True)
    told.presence.undrain()
    assert [NodeState.model_validate_json(message.payload).state for message in told.all()] == ["draining"]
    assert told.presence.state == "draining"


def test_a_node_that_is_lost_neither_drains_nor_comes_back(told: Told) -> None:
    told.introduce()
    told.presence.change_state("lost")
    told.all()
    told.presence.drain()
    told.presence.undrain()
    assert (told.presence.state, told.all()) == ("lost", [])


def report(ms: float = 10.0, **changes: Any) -> Reported:
    module = ModuleReport(state="ready", ms=ms)
    return Reported(boot="boot-1", modules={"m": module}, **changes)


@pytest.mark.parametrize(
    ("second", "worth_telling"),
    [
        (report(10.0), False),
        (report(11.9), False),  # faster or slower by less than a fifth
        (report(12.1), True),
        (report(7.9), True),
        (report(8.1), False),
        (report(10.0, free_mb=1.0), True),
        (report(10.0, epoch=2), True),
        (Reported(boot="boot-1"), True),
        (Reported(boot="boot-1", modules={"m": ModuleReport(state="failed", ms=10.0)}), True),
    ],
)
def test_a_report_is_told_when_something_worth_telling_changed(
    told: Told, second: Reported, *, worth_telling: bool
) -> None:
    told.introduce()
    told.presence.report(report(10.0))
    told.all()
    told.presence.report(second)
    assert told.topics() == ([REPORTED] if worth_telling else [])


def test_small_changes_count_against_what_was_told_last_and_add_up(told: Told) -> None:
    told.introduce()
    told.presence.report(report(10.0))
    told.all()
    told.presence.report(report(11.0))
    told.presence.report(report(11.9))
    assert told.topics() == []
    told.presence.report(report(12.5))
    assert told.topics() == [REPORTED]


def test_times_of_almost_nothing_are_compared_with_a_tenth_of_a_millisecond(told: Told) -> None:
    told.introduce()
    told.presence.report(report(0.001))
    told.all()
    told.presence.report(report(0.015))
    assert told.topics() == []
    told.presence.report(report(0.03))
    assert told.topics() == [REPORTED]


def load(told: Told, queues: dict[str, int], *, finished: dict[str, int] | None = None, idle_too: bool = False) -> None:
    told.presence.tell_load(queues, finished or {}, {}, idle_too=idle_too)


def test_the_load_is_told_while_there_is_some_and_once_when_it_is_over(told: Told) -> None:
    load(told, {})
    assert told.topics() == []
    load(told, {"m": 2})
    load(told, {"m": 1})
    assert told.topics() == [LOAD, LOAD]
    load(told, {})
    assert told.topics() == [LOAD]
    load(told, {})
    assert told.topics() == []


def test_an_idle_node_tells_its_load_too_when_it_is_asked_for_a_sign_of_life(told: Told) -> None:
    load(told, {}, idle_too=True)
    (message,) = told.all()
    assert (message.topic, message.retain, message.qos) == (LOAD, False, 0)
    assert NodeLoad.model_validate_json(message.payload) == NodeLoad(queues={})


def test_the_load_says_how_often_the_node_is_heard_at_least_once_it_is_known(told: Told) -> None:
    told.introduce()
    told.all()
    load(told, {}, idle_too=True)
    assert NodeLoad.model_validate_json(told.all()[0].payload) == NodeLoad(queues={}, keepalive_s=5.0)


@pytest.mark.parametrize(
    ("word", "boot", "denied"),
    [
        ("lost", "boot-1", True),  # its last will, though it is there
        ("lost", "boot-0", True),  # the late last will of an earlier process
        ("draining", "boot-1", True),  # not what it said
        ("unknown", "boot-1", True),
        ("ready", "boot-1", False),
        ("ready", "boot-0", False),  # another agent of this name: NameConflict decides
        ("draining", "boot-0", False),
    ],
)
def test_a_state_that_is_not_what_it_said_denies_the_node(told: Told, word: Any, boot: str, *, denied: bool) -> None:
    told.introduce()
    state = NodeState(state="ready", boot=boot).model_copy(update={"state": word})
    assert told.presence.is_denied_by(state) is denied
    told.presence.change_state("lost")
    assert not told.presence.is_denied_by(state), "it has left"


def test_the_profile_says_at_which_broker_the_node_is_now(told: Told) -> None:
    told.broker = "one:1"
    told.introduce()
    told.broker = "two:2"
    told.presence.tell_all()
    profiles = [message for message in told.all() if message.topic == PROFILE]
    assert [NodeProfile.model_validate_json(message.payload).broker for message in profiles] == ["one:1", "two:2"]


def test_requests_that_were_finished_are_told_with_the_timings_of_the_last(told: Told) -> None:
    timings = {"t": {"step": Timing("a", 1.0, 2.0, 3)}}
    told.presence.tell_load({}, {"t": 4}, timings, idle_too=False)
    document = NodeLoad.model_validate_json(told.all()[0].payload)
    assert document.finished == {"t": 4}
    latest = document.latest["t"]["step"]
    assert (latest.node, latest.queued_ms, latest.run_ms, latest.batch) == ("a", 1.0, 2.0, 3)


def test_an_event_is_told_and_not_retained(told: Told) -> None:
    told.presence.event(Event(event="module_failed", node="a", module="m"))
    (message,) = told.all()
    assert (message.topic, message.retain) == ("home/event", False)
    assert Event.model_validate_json(message.payload).module == "m"


def test_what_finds_no_room_on_the_link_is_logged_and_the_rest_still_told(told: Told) -> None:
    told.link.error = BusyError("full")
    told.introduce()
    assert told.topics() == [REPORTED, STATE]
    told.link.error = BusyError("full")
    told.presence.event(Event(event="node_joined"))
    assert told.topics() == []
