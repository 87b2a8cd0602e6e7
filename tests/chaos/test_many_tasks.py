"""Many tasks at once, and many nodes: new tasks get gateways and answers, and nodes that die cost no request."""

import random
import time

import pytest

from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.definitions import Definition
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Bar, Build, Say
from tests.chaos.load import Direct, Load, Plain, echo

_TASKS, _ENCODERS = 200, 40
_NODES, _KILLED = 60, 20


def _definition(number: int) -> Definition:
    """An encoder of its own for every fifth task; the other one and the head are shared by all."""
    encoder = {
        "id": f"left-{number % _ENCODERS}",
        "role": "vision-encoder",
        "class": "noop-encoder",
        "source": "none",
        "prefix": f"left-{number % _ENCODERS}",
        "inputs": {"data": "data"},
        "outputs": {"code": "data"},
        "memory_mb": 0.1,
    }
    other = {**encoder, "id": "noop-right", "role": "text-encoder", "prefix": "right"}
    head = {
        "id": "noop-head",
        "role": "head",
        "class": "noop-head",
        "source": "none",
        "inputs": {"left": "data", "right": "data"},
        "outputs": {"echo": "data"},
        "memory_mb": 0.1,
    }
    steps = {
        "left": {"module": encoder["id"], "inputs": {"data": "input.left"}},
        "right": {"module": "noop-right", "inputs": {"data": "input.right"}},
        "head": {"module": "noop-head", "inputs": {"left": "left.code", "right": "right.code"}},
    }
    inputs = {"left": "data", "right": "data"}
    model = {"id": f"many-{number}", "description": "-", "inputs": inputs, "answer": ["echo"], "steps": steps}
    return Definition.model_validate({"modules": [encoder, other, head], "model": model})


def _add(site: Site) -> list[str]:
    tasks = [f"many-{number}" for number in range(_TASKS)]
    for number, task in enumerate(tasks):
        add_task(site, task, m.TaskSpec(model=task, definition=_definition(number)))
    return tasks


@pytest.mark.long
@pytest.mark.short_on("mosquitto")
@pytest.mark.timeout(900)
def test_two_hundred_tasks_added_while_one_is_asked_get_gateways_and_answer(
    build: Build, bar: Bar, rng: random.Random, say: Say
) -> None:
    rig = build()
    names = [f"many-{number}" for number in range(_TASKS)]
    states: list[str] = []
    with Site(rig.settings) as site, Direct(rig.settings, rig.history) as direct:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        with (
            Plain(rig.broker.port_v3, rig.settings.root, names, rig.history) as plain,
            Load([direct], [echo(7)], count=None, per_s=1.0, rng=rng),
        ):
            began = time.monotonic()
            tasks = _add(site)
            added = time.monotonic()
            served = site.wait(lambda s: _note(s, states) and all(s.answers(task) for task in tasks), WAIT_S)
            took = time.monotonic() - added
            for number, task in enumerate(tasks[:150]):
                plain.ask(f"plain {number}", echo(number, task))
            rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {_TASKS} tasks added in {added - began:.1f} s, all served {took:.1f} s later; {verdict}")
    assert served, rig.log("planner")
    assert took < bar(10.0)
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
    assert "offline" not in states


def _note(site: Site, states: list[str]) -> bool:
    states.append(site.planner.state if site.planner is not None else "none")
    return True


@pytest.mark.long
@pytest.mark.short_on("mosquitto")
@pytest.mark.timeout(1800)
def test_twenty_of_sixty_nodes_killed_one_after_another_cost_no_request(
    build: Build, rng: random.Random, say: Say
) -> None:
    nodes = [f"n{number}" for number in range(_NODES)]
    rig = build(nodes=dict.fromkeys(nodes, 150.0))
    with Site(rig.settings) as site, Direct(rig.settings, rig.history) as direct:
        assert site.wait(lambda s: len(s.nodes.ready) == _NODES, 3 * WAIT_S), sorted(site.nodes.ready)
        tasks = _add(site)
        assert site.wait(lambda s: all(s.answers(task) for task in tasks), 2 * WAIT_S), rig.log("planner")
        questions = [echo(number, task) for number, task in enumerate(tasks)]
        with (
            Plain(rig.broker.port_v3, rig.settings.root, tasks, rig.history) as plain,
            # At least 200 requests a second are wanted, and the load does not make up for what is late.
            Load([direct, direct, plain], questions, count=None, per_s=250.0, rng=rng) as load,
        ):
            began = time.monotonic()
            load.lasts(5.0)
            for victim in rng.sample(nodes, _KILLED):
                rig.kill(victim)
                load.lasts(2.0)
            assert site.wait(lambda s: all(s.answers(task) for task in tasks), WAIT_S), rig.log("planner")
            load.stop()
            per_s = load.asked / (time.monotonic() - began)
            rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {_KILLED} of {_NODES} nodes killed, {_TASKS} tasks, {per_s:.0f} requests/s; {verdict}")
    assert verdict.asked == load.asked
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
