"""An agent that ends is gone for everybody, whatever its own threads do at the same time."""

import threading
from typing import Any

import pytest

from s2m3.agents.service import Agent
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.node_states import NodeStates
from s2m3.schemas import topics
from s2m3.schemas.messages import NodeState
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from tests.broker.test_link import linked, reached
from tests.conftest import WAIT_S


class SlowLog:
    """A log whose line about the drain is written as soon as the agent closes its connection."""

    def __init__(self) -> None:
        self.drains, self.closes = threading.Event(), threading.Event()

    def info(self, event: str, **_: Any) -> None:
        if event == "draining":
            self.drains.set()
            self.closes.wait(WAIT_S)


def test_an_agent_that_leaves_before_it_has_told_that_it_drains_has_left(
    settings: BrokerSettings, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pi = AgentSettings(port=settings.port, root=settings.root, node="pi", memory_mb=150)
    log = SlowLog()
    monkeypatch.setattr("s2m3.agents.presence._log", log)
    agent = Agent(pi)
    agent.start()
    disconnect = agent.link.stop

    def close() -> None:
        log.closes.set()
        disconnect()

    monkeypatch.setattr(agent.link, "stop", close)
    agent.drain(WAIT_S, unless=threading.Event())  # without modules it waits for nobody
    assert log.drains.wait(WAIT_S)
    agent.stop(left=True)
    last = NodeStates()

    def hear(node: str, state: NodeState | None) -> None:
        last.update(node, state)

    with linked(pi, loop, "watch") as link:
        listen(link, topics.NODE_STATE, hear, node="pi")
        assert reached(lambda: last.state("pi") is not None)
    assert last.has_left("pi"), last.state("pi")
