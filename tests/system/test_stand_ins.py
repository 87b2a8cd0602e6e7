"""A task of three models on four nodes, under load: dead nodes cost no request, and every answer is labelled."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import paho.mqtt.client as paho
import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Answer, Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.specs import Definition
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller

MODELS = ("best", "second", "third")
#: two for the best model, whose second copy is in spare memory, and one for each stand-in
NODES = {"a": 150.0, "b": 150.0, "c": 150.0, "d": 150.0}
#: how long a model that came back stays before it answers; seconds
STEADY_S = 1.0
RATE = 50


def definition(name: str) -> Definition:
    """A model of one module without weights, unlike those of other names."""
    module = {
        "id": name,
        "role": "vision-encoder",
        "class": "noop-encoder",
        "source": "none",
        "prefix": name,
        "inputs": {"data": "data"},
        "outputs": {"code": "data"},
        "memory_mb": 0.1,
    }
    steps = {"look": {"module": name, "inputs": {"data": "input.data"}}}
    model = {"id": name, "description": name, "inputs": {"data": "data"}, "steps": steps, "answer": ["code"]}
    return Definition.model_validate({"model": model, "modules": [module]})


@pytest.fixture
def cluster(kind: BrokerKind) -> Iterator[Cluster]:
    found = Cluster(NODES, kind=kind, threads=1)
    found.environment["S2M3_STEADY_S"] = str(STEADY_S)
    with found, Site(found.settings) as site:
        best, *further = MODELS
        stand_ins = [m.StandIn(model=name, definition=definition(name)) for name in further]
        spec = m.TaskSpec(model=best, definition=definition(best), stand_ins=stand_ins, deadline_s=10)
        assert site.wait(lambda s: s.nodes.ready == set(NODES), WAIT_S)
        add_task(site, "porch", spec)
        assert site.wait(lambda s: sorted(map(len, holders(s))) == [1, 1, 2], WAIT_S), found.log("planner")
        yield found


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Site]:
    with Site(cluster.settings) as found:
        yield found


def holders(site: Site) -> list[list[str]]:
    """The nodes with a ready copy of each of the task's models."""
    docs = site.routes["porch"].by_rank if "porch" in site.routes else ()
    found = [[r.node for step in doc.steps.values() for r in step.replicas] for doc in docs]
    return found or [[]]


def stand_in(site: Site) -> int:
    """The rank that answers when all nodes with the best model are gone: spare memory may hold copies side by side."""
    best, *further = holders(site)
    return next(rank for rank, nodes in enumerate(further, start=1) if set(nodes) - set(best))


class Load:
    """Requests at a steady rate, and what became of each: (time of the answer, answer)."""

    def __init__(self, client: Client) -> None:
        self._client, self._ended = client, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[tuple[float, Answer]] = []
        self.errors: list[BaseException] = []
        self.changed = threading.Condition()

    def _run(self) -> None:
        count = 0
        while not self._ended.wait(1 / RATE):
            reply = self._client.submit("porch", data=count)
            reply.add_done_callback(self._done)
            count += 1

    def _done(self, reply: "object") -> None:
        with self.changed:
            error = reply.exception()  # type: ignore[attr-defined]
            if error is not None:
                self.errors.append(error)
            else:
                self.answers.append((time.monotonic(), reply.result()))  # type: ignore[attr-defined]
            self.changed.notify_all()

    def wait(self, until: Callable[["Load"], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: until(self), WAIT_S)

    def first(self, rank: int, after: float) -> float | None:
        """When the first answer of a rank came after a time; None if none did."""
        return next((at for at, answer in self.answers if at > after and answer.rank == rank), None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def load(cluster: Cluster) -> Iterator[Load]:
    with Client(settings=cluster.settings) as client:
        with Load(client) as found:
            yield found
        sent = found.answers
        assert found.wait(lambda one: len(one.answers) + len(one.errors) >= len(sent))


@pytest.mark.short_on("mosquitto")
def test_a_killed_best_is_answered_for_by_the_next_and_answers_again_when_steady(cluster: Cluster, site: Site) -> None:
    best = holders(site)[0]
    rank = stand_in(site)
    with load(cluster) as asked:
        assert asked.wait(lambda one: len(one.answers) > RATE)
        for node in best:
            cluster.kill(node)
        killed = time.monotonic()
        assert asked.wait(lambda one: one.first(rank, killed) is not None)
        first = asked.first(rank, killed) or 0.0
        assert asked.wait(lambda one: one.first(0, first) is not None), cluster.log("planner")
        back = asked.first(0, first) or 0.0
    assert asked.errors == []
    assert {(answer.rank, answer.model) for _, answer in asked.answers} == {(0, "best"), (rank, MODELS[rank])}
    assert back - first >= STEADY_S * 0.5  # it had to stay first
    said = Counter(answer.model for _, answer in asked.answers)
    assert said[MODELS[rank]] >= RATE * STEADY_S * 0.5


@pytest.mark.short_on("mosquitto")
def test_with_the_planner_dead_a_stand_in_answers_and_who_asks_plainly_reads_the_rank(
    cluster: Cluster, site: Site
) -> None:
    assert site.wait(lambda s: any("porch" in plan.gateways for plan in s.plans.values()), WAIT_S)
    (gateway,) = [node for node, plan in site.plans.items() if "porch" in plan.gateways]
    request, response = "s2m3/v1/request/porch", "s2m3/v1/response/porch"
    with PlainCaller(cluster.broker.port_v3, paho.MQTTv311, (response,)) as caller, load(cluster) as asked:
        caller.send(request, json.dumps({"inputs": {"data": 1}}).encode())
        answer = caller.answer()
        assert (answer["model"], answer["rank"], answer["answer"]) == ("best", 0, 1)
        cluster.kill("planner")
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
        best, rank = holders(site)[0], stand_in(site)
        for node in best:
            cluster.kill(node)
        killed = time.monotonic()
        assert asked.wait(lambda one: one.first(rank, killed) is not None)
        if gateway not in best:  # the plain caller's gateway falls to the next model like any requester
            caller.send(request, json.dumps({"inputs": {"data": 2}}).encode())
            answer = caller.answer()
            assert (answer["model"], answer["rank"], answer["answer"]) == (MODELS[rank], rank, 2)
        cluster.start_planner()
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S)
        assert asked.wait(lambda one: one.first(0, killed + STEADY_S / 2) is not None), cluster.log("planner")
    assert asked.errors == []
    assert site.rank("porch") == 0
