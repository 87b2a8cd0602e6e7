"""Two agents of one node name: the second is told, a lingering connection is taken over, a fight ends with one left."""

import contextlib
import threading
from collections.abc import Iterator

import pytest

from s2m3.agents.node_name import NameConflict, check_name_is_free
from s2m3.agents.service import Agent
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing, Will
from s2m3.schemas import topics
from s2m3.schemas.errors import NameTakenError
from s2m3.schemas.messages import NodeState
from s2m3.schemas.sessions import node_client_id
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from tests.broker.test_link import linked, reached
from tests.conftest import WAIT_S, has_mosquitto

STATE = "node/raspberrypi/state"


@pytest.fixture
def pi(settings: BrokerSettings) -> AgentSettings:
    return AgentSettings(port=settings.port, root=settings.root, node="raspberrypi", memory_mb=150)


def _published(link: Link, settings: AgentSettings, state: NodeState) -> None:
    told = threading.Event()
    message = Outgoing(f"{settings.root}/{STATE}", state.encode(), retain=True)
    link.publish(message, on_delivered=told.set, on_no_subscribers=told.set)
    assert told.wait(WAIT_S)


@contextlib.contextmanager
def _running(settings: AgentSettings) -> Iterator[Agent]:
    agent = Agent(settings)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


def test_23_a_second_agent_of_the_name_is_told_so_and_what_to_do_and_the_first_stays(
    pi: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _running(pi) as first:
        with monkeypatch.context() as patient:
            for name in ("_RETAINED_S", "_ANSWER_S"):  # the first one answers, however busy the machine is
                patient.setattr(f"s2m3.agents.node_name.{name}", WAIT_S)
            with pytest.raises(NameTakenError, match=r"another agent runs as node 'raspberrypi'.*--node NAME") as told:
                check_name_is_free(pi)
        assert told.value.code == "name_taken"
        assert first.link.connected
        assert first.refused is None
        check_name_is_free(pi.model_copy(update={"node": "pi-kitchen"}))
    check_name_is_free(pi)  # it has said good-bye


@pytest.mark.parametrize("state", ["ready", "draining", "lost"])
def test_23_a_name_whose_agent_does_not_answer_is_free(pi: AgentSettings, loop: Loop, state: str) -> None:
    """Its connection lingers on the broker: the device lost its power, or its cable."""
    left = NodeState.model_validate({"state": state, "boot": "frozen"})
    with linked(pi, loop, node_client_id(pi, pi.node), reconnect=False) as frozen:
        _published(frozen, pi, left)
        check_name_is_free(pi)
        with _running(pi) as agent:
            assert agent.link.connected


def test_23_a_name_is_free_as_soon_as_the_last_will_of_its_agent_comes(
    pi: AgentSettings, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2m3.agents.node_name._ANSWER_S", WAIT_S)
    will = Will(f"{pi.root}/{STATE}", NodeState(state="lost", boot="dying").encode())
    dying = Link(pi, node_client_id(pi, pi.node), loop, will=will)
    dying.start()
    _published(dying, pi, NodeState(state="ready", boot="dying"))
    # the probe comes to the node's own topic: the agent dies while it is asked
    dying.subscribe(topics.NODE_STATE.at(pi.root, node=pi.node), lambda m: dying.abort() if not m.retain else None)
    check_name_is_free(pi)


@pytest.mark.skipif(not has_mosquitto(), reason="mosquitto is not installed")
@pytest.mark.parametrize("kind", ["mosquitto"], scope="session")
def test_23_of_two_agents_that_take_each_other_over_one_ends_with_the_error(pi: AgentSettings) -> None:
    """Both were started at once, or one came back from a broken network."""
    with _running(pi) as one, _running(pi) as other:
        assert reached(lambda: one.refused is not None or other.refused is not None)
        (stays, ends) = (one, other) if other.refused is not None else (other, one)
        assert isinstance(ends.refused, NameTakenError)
        assert reached(lambda: not ends.link.connected), "it leaves the connection to the other at once"
        ends.stop()
        assert reached(lambda: stays.link.connected)
        assert stays.refused is None


@pytest.mark.parametrize("word", ["draining", "unknown", "lost"])
def test_a_state_that_the_agent_did_not_say_is_corrected(pi: AgentSettings, loop: Loop, word: str) -> None:
    """Somebody else wrote it, or a bad cable did: nobody would give the node work again."""
    heard: list[NodeState] = []
    with _running(pi), linked(pi, loop, "stranger") as link:
        listen(link, topics.NODE_STATE, lambda _, state: heard.append(state) if state else None, node=pi.node)
        assert reached(lambda: bool(heard))
        said = heard[-1]
        wrong = said.model_copy(update={"state": word})
        _published(link, pi, wrong)
        assert reached(lambda: wrong in heard and heard[-1] == said), heard


def _state(boot: str, state: str = "ready") -> NodeState:
    return NodeState.model_validate({"state": state, "boot": boot})


def test_a_late_last_will_and_probes_are_no_conflict() -> None:
    conflict = NameConflict("pi", "m")
    for state in [_state("z"), _state("z", "lost"), None, _state("m"), _state("z", "lost"), _state("m"), _state("z")]:
        conflict.on_state(state)
    for probe in range(20):
        conflict.on_state(_state(f"probe-{probe}", "lost"))
    assert conflict.error is None


@pytest.mark.parametrize(("mine", "foreign", "most"), [("a", "b", 3), ("b", "a", 8)])
def test_the_smaller_boot_id_ends_first_and_the_larger_where_the_other_never_does(
    mine: str, foreign: str, most: int
) -> None:
    conflict = NameConflict("pi", mine)
    conflict.on_state(_state(mine))
    for seen in range(1, most + 1):
        assert conflict.error is None, seen
        conflict.on_state(_state(foreign, "lost"))
    assert conflict.error is not None
    assert "node pi" in str(conflict.error)
