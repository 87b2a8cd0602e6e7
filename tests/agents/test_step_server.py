"""The data plane of an agent on a real broker of each kind: what requesters hear of their works."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from queue import Queue
from typing import Any

import pytest

from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.serving.step_server import StepServer
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.requests.work_messages import WorkSender, send_work
from s2m3.schemas import topics
from s2m3.schemas.messages import NodeState
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from s2m3.schemas.wire.codec import decode_answer
from s2m3.schemas.wire.input_pieces import Growing, InputPiece, encode_input_piece
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Hop, Work
from tests.conftest import WAIT_S


class Slow:
    """Returns the length of its input once its gate is open."""

    nbytes, light, max_batch = 0, False, 1

    def __init__(self) -> None:
        self.gate, self.began = threading.Event(), threading.Semaphore(0)

    def prepare(self, inputs: Mapping[str, Value]) -> Value:
        return inputs["x"]

    def run(self, batch: Sequence[Any], wanted: frozenset[str]) -> list[dict[str, Value]]:  # noqa: ARG002
        self.began.release()
        assert self.gate.wait(WAIT_S)
        return [{"y": len(data)} for data in batch]


class Bench:
    """A step server with one slow module on one link, and on another a requester with its inbox."""

    def __init__(self, settings: BrokerSettings, link: Link, requester: Link, loop: Loop) -> None:
        self.requester, self.inbox = requester, topics.CLIENT_IN.at(settings.root, client="tester")
        self.heard: Queue[Any] = Queue()
        self.module = Slow()
        node = AgentSettings(host=settings.host, port=settings.port, root=settings.root, node="a", memory_mb=100.0)
        self.room = PayloadRoom(100.0, lambda: 100.0)
        self.server = StepServer(node, link, loop, Watchdog(), self.room, preparing=1)
        self.server.start()
        served, listening = threading.Event(), threading.Event()
        self.server.serve("slow", self.module, served.set)
        requester.subscribe(self.inbox, self.heard.put, on_subscribed=listening.set)
        assert served.wait(WAIT_S)
        assert listening.wait(WAIT_S)

    def send(self, request: bytes, data: bytes) -> None:
        send_work(self.requester, self.work(request, data), lambda error: pytest.fail(str(error)))

    def work(self, request: bytes, data: bytes, attempt: int = 1) -> Work:
        route = {"s": Hop("slow", "a", {"x": "input.x"}, ("y",))}
        return Work(request * 16, "task", "s", attempt, 1, self.inbox, {"x": data}, route, 60_000.0)


@pytest.fixture
def bench(settings: BrokerSettings, loop: Loop) -> Iterator[Bench]:
    link = Link(settings, f"server-{settings.root}".replace("/", "-"), loop)
    requester = Link(settings, f"requester-{settings.root}".replace("/", "-"), loop)
    link.start()
    requester.start()
    made = Bench(settings, link, requester, loop)
    yield made
    made.module.gate.set()
    made.server.runner.stop()
    requester.stop()
    link.stop()


def test_36_a_requester_is_told_that_its_long_work_is_under_way_and_then_gets_the_answer(bench: Bench) -> None:
    bench.send(b"1", b"abc")
    notice = bench.heard.get(timeout=WAIT_S)
    assert (notice.payload, notice.correlation) == (b"", b"1" * 16)
    assert notice.user == {"step": "s", "attempt": "1", "working": "1"}
    bench.module.gate.set()
    while not (last := bench.heard.get(timeout=WAIT_S)).payload:
        assert last.user == notice.user
    assert decode_answer(last.payload, request=last.correlation, user=last.user).outputs == {"y": 3}


def test_37_works_whose_payloads_do_not_fit_the_budget_are_busy_and_those_before_are_done(bench: Bench) -> None:
    for request in (b"1", b"2", b"3", b"4"):
        bench.send(request, bytes(10_000_000))
    outcomes: dict[bytes, str | None] = {}
    while len(outcomes) < 4:
        message = bench.heard.get(timeout=WAIT_S)
        if message.payload and message.correlation:
            answer = decode_answer(message.payload, request=message.correlation, user=message.user)
            outcomes[answer.request[:1]] = str(answer.error) if answer.error else None
            bench.module.gate.set()
    said = "busy: payloads of 30 MB wait here; of 32 MB at most (step s, node a)"
    assert outcomes == {b"1": None, b"2": None, b"3": None, b"4": said}


def _answer(bench: Bench) -> Any:
    message = bench.heard.get(timeout=WAIT_S)
    return decode_answer(message.payload, request=message.correlation, user=message.user)


def test_an_input_that_grows_is_sent_once_and_repeated_where_it_was_lost(bench: Bench) -> None:
    sizes: list[int] = []
    watching = threading.Event()
    topic = topics.MODULE_IN.at(bench.requester.root, module="slow", node="a")
    bench.requester.subscribe(topic, lambda m: sizes.append(len(m.payload)), on_subscribed=watching.set)
    assert watching.wait(WAIT_S)
    bench.module.gate.set()
    sender, refused = WorkSender(bench.requester), lambda error: pytest.fail(str(error))
    sender.on_node_state("a", NodeState(state="ready", boot="b", protocol=1))
    sound = bytes(300_000)
    for number, size in enumerate((100_000, 200_000, 300_000)):
        sender.send(bench.work(bytes([49 + number]), Growing.of(b"s" * 16, sound[:size])), refused)
        assert _answer(bench).outputs == {"y": size}
    assert 300_000 < sum(sizes) < 305_000
    for at in (0, 400_000):  # behind a gap the stream is dropped
        gap = Outgoing(topic, b"x", correlation=b"s" * 16, user=encode_input_piece(InputPiece(b"s" * 16, at, b"x")))
        bench.requester.publish(gap)
    sender.send(bench.work(b"4", Growing.of(b"s" * 16, sound)), refused)
    assert _answer(bench).error.code == "not_ready"
    sender.send(bench.work(b"4", Growing.of(b"s" * 16, sound), attempt=2), refused)
    assert _answer(bench).outputs == {"y": 300_000}


def test_an_older_agent_gets_an_input_that_grows_whole(bench: Bench) -> None:
    bench.module.gate.set()
    sender = WorkSender(bench.requester)
    sender.on_node_state("a", NodeState(state="ready", boot="b"))
    sender.send(bench.work(b"1", Growing.of(b"s" * 16, bytes(70_000))), lambda error: pytest.fail(str(error)))
    assert _answer(bench).outputs == {"y": 70_000}
