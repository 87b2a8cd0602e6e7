"""Tensors between two agents on both brokers: half the bytes where the task tolerates it, float32 for the module."""

import threading
from dataclasses import replace
from queue import Queue
from typing import Any

import numpy as np
import pytest

from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.serving.step_server import StepServer
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.work_messages import send_work
from s2m3.schemas import topics
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from s2m3.schemas.wire.codec import decode_answer
from s2m3.schemas.wire.work import Work
from tests.agents.test_rounding import STATES, route
from tests.conftest import WAIT_S


class _Encoder:
    nbytes, light, max_batch = 0, False, 1

    def prepare(self, inputs: Any) -> Any:
        return inputs

    def run(self, batch: Any, wanted: Any) -> Any:  # noqa: ARG002
        return [{"states": STATES} for _ in batch]


class _Head(_Encoder):
    def __init__(self) -> None:
        self.given: Queue[Any] = Queue()

    def run(self, batch: Any, wanted: Any) -> Any:  # noqa: ARG002
        self.given.put(batch[0]["states"])
        return [{"sum": float(batch[0]["states"].sum())}]


@pytest.mark.short_on("embedded")
@pytest.mark.parametrize("tolerance", [0.0, 0.0005])
def test_hidden_states_cross_the_broker_in_half_the_bytes_where_that_is_tolerated(
    settings: BrokerSettings, loop: Loop, tolerance: float
) -> None:
    links = {name: Link(settings, f"{name}-{settings.root}".replace("/", "-"), loop) for name in ("a", "b", "asks")}
    head, heard, passed = _Head(), Queue[Any](), Queue[Any]()
    servers = []
    for link in links.values():
        link.start()
    for node, module, served_module in (("a", "encoder", _Encoder()), ("b", "head", head)):
        node_settings = AgentSettings(host=settings.host, port=settings.port, root=settings.root, node=node)
        server = StepServer(node_settings, links[node], loop, Watchdog(), PayloadRoom(100.0), preparing=1)
        server.start()
        served = threading.Event()
        server.serve(module, served_module, served.set)
        assert served.wait(WAIT_S)
        servers.append(server)
    inbox, into = (
        topics.CLIENT_IN.at(settings.root, client="tester"),
        topics.MODULE_IN.at(settings.root, module="head", node="b"),
    )
    for topic, queue in ((inbox, heard), (into, passed)):
        listening = threading.Event()
        links["asks"].subscribe(topic, queue.put, on_subscribed=listening.set)
        assert listening.wait(WAIT_S)
    work = Work(b"1" * 16, "t", "encode", 1, 1, inbox, {"x": 1}, route(tolerance), 60_000.0)
    send_work(links["asks"], work, lambda error: pytest.fail(str(error)))
    send_work(links["asks"], replace(work, step="head"), lambda error: pytest.fail(str(error)))
    answer = heard.get(timeout=WAIT_S)
    given = head.given.get(timeout=WAIT_S)
    for server in servers:
        server.runner.stop()
    for link in links.values():
        link.stop()
    largest = max(len(passed.get(timeout=WAIT_S).payload) for _ in range(2))
    assert (given.dtype, given.shape) == (np.float32, STATES.shape)
    assert np.abs(given - STATES).max() <= tolerance * np.abs(STATES).max()
    assert largest - STATES.nbytes // (2 if tolerance else 1) < 1_000
    assert decode_answer(answer.payload, request=answer.correlation, user=answer.user).error is None
