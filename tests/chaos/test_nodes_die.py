"""Nodes are killed at random under load: every request gets one right answer, and moved work is back in seconds."""

import random
from collections.abc import Sequence

import pytest

from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Form, Say
from tests.chaos.load import Direct, Load, Plain, echo
from tests.chaos.rig import Rig


def kill_one(rig: Rig, site: Site, load: Load, tasks: Sequence[str], rng: random.Random, away_s: float) -> None:
    """Kills a node, starts it again after a while, and waits until all tasks are ready: there is capacity left."""
    victim = rng.choice(sorted(site.nodes.ready))
    rig.kill(victim)
    load.lasts(away_s)
    rig.start_agent(victim)
    assert site.wait(lambda s: s.nodes.state(victim) == "ready", WAIT_S), rig.log(victim)
    assert site.wait(lambda s: all(s.ready(task) for task in tasks), 2 * WAIT_S), rig.log("planner")


@pytest.mark.short_on("mosquitto")
@pytest.mark.timeout(900)
def test_requests_outlive_nodes_that_are_killed_at_random(
    build: Build, rng: random.Random, form: Form, say: Say
) -> None:
    count, half_s = (10_000, 5.0) if form == "long" else (400, 1.0)
    most_open = None if form == "long" else 100
    kills = 0
    rig = build()
    tasks = ["noop", "slow"]
    with Site(rig.settings) as site:
        for task in tasks:
            rig.add(site, task, m.TaskSpec(model=task))
        questions = [echo(i, tasks[i % 5 == 0]) for i in range(count)]
        with (
            Direct(rig.settings, rig.history) as direct,
            Plain(rig.broker.port_v3, rig.settings.root, tasks, rig.history) as plain,
            Load([direct, direct, plain], questions, count=None, per_s=60.0, rng=rng, most_open=most_open) as load,
        ):
            while kills < 2 or load.asked < count:  # the load goes on for as long as this takes
                load.lasts(half_s)
                kill_one(rig, site, load, tasks, rng, half_s)
                kills += 1
            load.stop()
            rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {kills} nodes killed; {verdict}")
    assert verdict.asked == load.asked
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
