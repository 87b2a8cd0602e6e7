"""Tensors between nodes in half the bytes: within what the task tolerates, and float32 again for the next module."""

import threading
from dataclasses import replace
from queue import Queue
from typing import Any

import numpy as np
import pytest

from s2m3.agents.serving.once_per_content import content_of_inputs
from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.serving.rounding import rounded, widened, with_rounded
from s2m3.agents.serving.step_server import StepServer
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.work_messages import send_work
from s2m3.schemas import topics
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from s2m3.schemas.wire.codec import decode_answer, decode_work, encode_work
from s2m3.schemas.wire.work import Hop, Work
from tests.conftest import WAIT_S

STATES = np.random.default_rng(7).normal(0, 5, (1, 100, 64)).astype(np.float32)


def route(tolerance: float) -> dict[str, Hop]:
    return {
        "encode": Hop("encoder", "a", {"x": "input.x"}, ("states",), tolerance=tolerance),
        "head": Hop("head", "b", {"states": "encode.states", "x": "input.x"}, ("sum",)),
    }


def test_large_tensors_are_halved_at_any_depth_and_all_else_stays() -> None:
    small, whole = STATES[0, :2], np.arange(20_000)
    found = rounded({"a": [{"b": STATES}], "small": small, "whole": whole, "text": "x"}, 0.0005)
    assert found["a"][0]["b"].dtype == np.float16
    assert np.abs(found["a"][0]["b"] - STATES).max() <= 0.0005 * np.abs(STATES).max()
    assert (found["small"] is small, found["whole"] is whole, found["text"]) == (True, True, "x")


@pytest.mark.parametrize(
    ("value", "tolerance"),
    [(1.0, 0.0), (1.0, 1e-5), (1e6, 0.0005), (float("inf"), 1.0), (float("nan"), 1.0)],
    ids=["nothing tolerated", "less tolerated", "out of range", "infinite", "not a number"],
)
def test_a_tensor_that_float16_would_change_by_more_goes_as_it_is(value: float, tolerance: float) -> None:
    tensor = STATES.copy()
    tensor[0, 0, 0] = value
    assert rounded({"a": tensor}, tolerance)["a"] is tensor


def test_what_came_from_a_step_with_a_tolerance_is_float32_again_and_the_requests_own_tensors_stay() -> None:
    half = STATES.astype(np.float16)
    work = Work(b"1" * 16, "t", "head", 1, 1, "inbox", {"states": half, "x": half}, route(0.0005), 1_000.0)
    arrived = with_rounded(work)
    assert arrived.inputs is work.inputs  # in the loop's thread nothing is computed
    found = widened(arrived)
    assert (found["states"].dtype, found["x"].dtype) == (np.float32, np.float16)
    assert widened(with_rounded(replace(work, route=route(0.0))))["states"].dtype == np.float16
    assert with_rounded(replace(work, inputs={"states": STATES, "x": half})).rounded == frozenset()


def test_inputs_that_are_going_to_be_widened_are_not_those_that_are_given_as_they_are() -> None:
    inputs = {"states": STATES.astype(np.float16)}
    assert content_of_inputs(inputs, {"states"}) not in {content_of_inputs(inputs), None}
    assert content_of_inputs(inputs, {"states"}) == content_of_inputs(dict(inputs), frozenset({"states"}))


def test_a_tolerance_travels_with_the_route_and_is_checked() -> None:
    work = Work(b"1" * 16, "t", "head", 1, 1, "inbox", {"states": STATES}, route(0.0005), 1_000.0)
    payload, user = encode_work(work)
    read = decode_work(payload, request=work.request, reply_to="inbox", user=dict(user))
    assert {step: hop.tolerance for step, hop in read.route.items()} == {"encode": 0.0005, "head": 0.0}
    assert b"tolerance" not in encode_work(replace(work, route=route(0.0)))[0]


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
