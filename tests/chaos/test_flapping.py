"""A node that comes and goes, as a process: soon nothing is placed on it, no last copy is removed, all is answered."""

import json
import random
from collections import defaultdict

import paho.mqtt.client as paho
import pytest

from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Form, Say
from tests.chaos.load import Direct, Load, Plain, echo
from tests.system.plain import PlainCaller

_NODES = {"a": 150.0, "b": 150.0}
#: Two short lives in a row and a node is held back; the first of all may have been a long one.
_SHORT_LIVES = 3
#: What a planner has not heard yet, it cannot go by.
_UNHEARD_S = 1.0
_SETTLED = "marker/settled"


def test_the_record_finds_a_last_copy_that_was_removed_and_none_where_another_was_ready() -> None:
    record = Record()
    held, empty = m.Plan(epoch=1, revision=1), m.Plan(epoch=1, revision=2)
    for node in ("a", "b"):
        record.take(f"node/{node}/state", m.NodeState(state="ready", boot=node).encode(), 0.0)
        ready = {"x": m.ModuleReport(state="ready")}
        record.take(f"node/{node}/reported", m.Reported(boot=node, modules=ready).encode(), 0.0)
        record.take(f"plan/{node}", held.encode().replace(b'"modules":[]', b'"modules":[{"id":"x"}]'), 0.0)
    record.take("plan/a", empty.encode(), 1.0)
    assert record.removed == []
    record.take("node/a/reported", m.Reported(boot="a").encode(), 1.0)
    record.take("plan/b", empty.encode(), 9.0)
    assert record.removed == [("b", "x")]


class Record:
    """What plans took away from whom, by what nodes had said until then."""

    def __init__(self) -> None:
        #: (node, its modules), each plan that came
        self.plans: list[tuple[str, frozenset[str]]] = []
        #: (node, module): the last ready copy was taken away
        self.removed: list[tuple[str, str]] = []
        self._planned: dict[str, frozenset[str]] = {}
        self._ready: dict[str, set[str]] = defaultdict(set)
        self._gone_at: dict[tuple[str, str], float] = {}

    def take(self, topic: str, payload: bytes, now: float) -> None:
        """Takes in a document, in the order in which the broker told them."""
        document = json.loads(payload) if payload else {}
        match topic.split("/"):
            case ["node", node, "state"] if document.get("state") == "lost":
                self._hold(node, set(), now)
            case ["node", node, "reported"]:
                reports = document.get("modules", {})
                self._hold(node, {name for name, report in reports.items() if report["state"] == "ready"}, now)
            case ["plan", node]:
                modules = frozenset(spec["id"] for spec in document.get("modules", []))
                for module in self._planned.get(node, frozenset()) - modules:
                    if module in self._ready[node] and not self._is_elsewhere(module, node, now):
                        self.removed.append((node, module))
                self._planned[node] = modules
                self.plans.append((node, modules))

    def _hold(self, node: str, ready: set[str], now: float) -> None:
        for module in self._ready[node] - ready:
            self._gone_at[node, module] = now
        self._ready[node] = ready

    def _is_elsewhere(self, module: str, node: str, now: float) -> bool:
        others = [other for other in self._ready if other != node]
        return any(
            module in self._ready[other] or now - self._gone_at.get((other, module), -9.0) < _UNHEARD_S
            for other in others
        )


@pytest.mark.timeout(600)
@pytest.mark.short_on("mosquitto")
def test_a_node_that_flaps_gets_nothing_soon_no_last_copy_is_removed_and_all_is_answered(
    build: Build, rng: random.Random, form: Form, say: Say
) -> None:
    lives, up_s, down_s = (18, 5.0, 5.0) if form == "long" else (5, 0.5, 0.0)
    rig = build(nodes=_NODES)
    heard = ("s2m3/v1/node/+/state", "s2m3/v1/node/+/reported", "s2m3/v1/plan/+", _SETTLED)
    with Site(rig.settings) as site, PlainCaller(rig.broker.port, paho.MQTTv5, heard) as listener:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        with (
            Direct(rig.settings, rig.history) as direct,
            Plain(rig.broker.port_v3, rig.settings.root, ["noop"], rig.history) as plain,
        ):
            questions = [echo(i) for i in range(100)]
            with Load([direct, plain], questions, count=100_000, per_s=20.0, rng=rng) as load:
                for life in range(lives):
                    load.lasts(up_s)
                    rig.kill("b")
                    assert site.wait(lambda s: s.nodes.state("b") == "lost", WAIT_S)
                    assert site.wait(lambda s: s.ready("noop"), WAIT_S), rig.log("planner")
                    if life + 1 == _SHORT_LIVES:
                        listener.send(_SETTLED, b"")  # behind all that the broker has told until now
                    load.lasts(down_s)
                    rig.start_agent("b")
                    assert site.wait(lambda s: s.nodes.state("b") == "ready", WAIT_S), rig.log("b")
            assert rig.history.wait_until_all_answered(WAIT_S)
    record, before = Record(), 0
    while not listener.answers.empty():
        message = listener.answers.get()
        if message.topic == _SETTLED:
            before = len(record.plans)
        record.take(message.topic.removeprefix("s2m3/v1/"), bytes(message.payload), message.timestamp)
    verdict = rig.history.verdict()
    late = [(node, sorted(modules)) for node, modules in record.plans[before:]]
    say(f"{rig.broker.kind}: {lives} lives, {len(record.plans)} plans, {len(late)} after the third life; {verdict}")
    assert record.removed == []
    assert [modules for node, modules in late if node == "b" and modules] == []
    assert len(late) <= 2, late
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
