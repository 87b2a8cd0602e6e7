"""Sites as their topics tell them, without a site: small for looks and attacks, large for load."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from s2m3.broker.servers.launch import Broker
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.document import Document
from s2m3.schemas.wire.plain import encode_plain_result
from s2m3.schemas.wire.work import Timing
from tests.conftest import WAIT_S

ROOT = "s2m3/v1"
ROLES = ("vision-encoder", "text-encoder", "audio-encoder", "decoder", "head")
#: (topic, payload, retained)
Told = tuple[str, bytes, bool]


def told(path: topics.Topic[Any], document: Document, **ids: str) -> Told:
    return path.at(ROOT, **ids), document.encode(), path.retain


@dataclass
class RecordedSite:
    """Tasks of two encoders and a head each, over nodes that hold some modules each.

    Args:
        nodes: How many.
        modules: How many different ones; tasks share them.
        tasks: How many.
    """

    nodes: int
    modules: int
    tasks: int

    def __post_init__(self) -> None:
        self.random = random.Random(7)  # noqa: S311  # the same recording each time, no secret
        self.names = [f"node-{n:02}" for n in range(self.nodes)]
        self.specs = [self._spec(number) for number in range(self.modules)]
        self.holders = {spec.id: self.random.sample(self.names, k=2) for spec in self.specs}
        heads = [spec.id for spec in self.specs if spec.role == "head"]
        encoders = [spec.id for spec in self.specs if spec.role != "head"]
        self.steps = {
            f"task-{number:02}": dict(
                zip(
                    ("left", "right", "head"),
                    [*self.random.sample(encoders, k=2), self.random.choice(heads)],
                    strict=True,
                )
            )
            for number in range(self.tasks)
        }

    def _spec(self, number: int) -> ModuleSpec:
        role = ROLES[number % len(ROLES)]
        values: dict[str, Any] = {"inputs": {"data": "data"}, "outputs": {"data": "data"}, "source": "none"}
        return ModuleSpec.model_validate(
            {
                **values,
                "id": f"{role}-{number:03}",
                "role": role,
                "class": "noop-encoder",
                "memory_mb": 20 + number % 60,
            }
        )

    def retained(self) -> Iterator[Told]:
        """Everything that a newcomer is told."""
        yield told(topics.PLANNER_STATE, m.PlannerState(state="online", epoch=1))
        for node in self.names:
            yield told(topics.NODE_PROFILE, self._profile(), node=node)
            yield told(topics.PLAN, m.Plan(epoch=1, revision=1, modules=self.held(node)), node=node)
            yield self.reported(node)
            yield told(topics.NODE_STATE, m.NodeState(state="ready", boot="b"), node=node)
        for task, steps in self.steps.items():
            yield told(topics.TASK, m.TaskSpec(model="recorded"), task=task)
            yield told(topics.ROUTE, self._route(steps), task=task)

    def held(self, node: str) -> list[ModuleSpec]:
        return [spec for spec in self.specs if node in self.holders[spec.id]]

    def reported(self, node: str) -> Told:
        """What a node holds; the measured times vary from one report to the next, as they do."""
        modules = {
            spec.id: m.ModuleReport(
                state="ready",
                bytes=int(spec.memory_mb * 1e6),
                memory_mb=spec.memory_mb,
                ms=round(self.random.uniform(5, 90), 1),
            )
            for spec in self.held(node)
        }
        used = sum(report.memory_mb for report in modules.values())
        document = m.Reported(boot="b", epoch=1, revision=1, modules=modules, runtime_mb=400, free_mb=600 - used)
        return told(topics.NODE_REPORTED, document, node=node)

    @staticmethod
    def _profile() -> m.NodeProfile:
        return m.NodeProfile(boot="b", version="0", memory_mb=1000, runtime_mb=400, gflops=50, latency_ms=1, mbps=100)

    def _route(self, steps: dict[str, str]) -> m.RouteDoc:
        def step(name: str, inputs: dict[str, str]) -> m.RouteStep:
            replicas = [m.Replica(node=node, ms=20) for node in self.holders[steps[name]]]
            return m.RouteStep(module=steps[name], inputs=inputs, outputs=["data"], replicas=replicas)

        return m.RouteDoc(
            epoch=1,
            revision=1,
            model="recorded",
            inputs={"text": "texts"},
            answer=["label"],
            deadline_s=10,
            steps={
                "left": step("left", {"data": "input.text"}),
                "right": step("right", {"data": "input.text"}),
                "head": step("head", {"data": "left.data", "more": "right.data"}),
            },
        )

    def answer(self) -> Told:
        """One request's plain answer, with the time of each step."""
        task = self.random.choice(list(self.steps))
        steps = self.steps[task]
        timings = {
            name: Timing(self.random.choice(self.holders[module]), 0.4, self.random.uniform(5, 90), 1)
            for name, module in steps.items()
        }
        payload = encode_plain_result(
            answer="a cat",
            outputs={"label": "a cat", "score": 0.48},
            timings=timings,
            latency_ms=sum(timing.run_ms for timing in timings.values()),
            attempts=1,
            request=self.random.randbytes(16),
            transaction=None,
            model="retrieval",
        )
        return topics.RESPONSE.at(ROOT, task=task), payload, False

    def load(self, node: str) -> Told:
        modules = [spec.id for spec in self.held(node)]
        return told(
            topics.NODE_LOAD, m.NodeLoad(queues=dict.fromkeys(modules[:2], 2), finished={"task-00": 1}), node=node
        )

    def lost(self, node: str) -> Iterator[Told]:
        """A node dies, and what it held is planned and reported elsewhere."""
        yield told(topics.NODE_STATE, m.NodeState(state="lost", boot="b"), node=node)
        yield told(topics.EVENT, m.Event(event="node_lost", node=node))
        for spec in self.held(node):
            rest = [name for name in self.names if name not in self.holders[spec.id]]
            self.holders[spec.id] = [self.random.choice(rest), *(n for n in self.holders[spec.id] if n != node)]
        yield told(topics.PLAN, m.Plan(epoch=1, revision=2), node=node)
        for name in self.names:
            if name != node:
                yield told(topics.PLAN, m.Plan(epoch=1, revision=2, modules=self.held(name)), node=name)
                yield self.reported(name)

    def back(self, node: str) -> Iterator[Told]:
        yield self.reported(node)
        yield told(topics.NODE_STATE, m.NodeState(state="ready", boot="b"), node=node)
        yield told(topics.EVENT, m.Event(event="node_joined", node=node))


class Teller:
    """Publishes what a site would have said, in MQTT 3.1.1: on a broker, or on a port of 127.0.0.1."""

    def __init__(self, broker: Broker | int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._port = broker if isinstance(broker, int) else broker.port_v3

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def tell(self, *all_told: Told) -> None:
        sent = [self._client.publish(topic, payload, qos=1, retain=retain) for topic, payload, retain in all_told]
        for one in sent:
            one.wait_for_publish(WAIT_S)

    def say(self, topic: str, document: object, *, retain: bool = True) -> None:
        """Publishes anything at all."""
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.tell((f"{ROOT}/{topic}", payload, retain))
