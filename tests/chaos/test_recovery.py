"""How long a killed node is felt: hardly where a warm copy is, for a load of the module where none is."""

import random
import re
import time

import pytest

from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Bar, Build, Form, Say
from tests.chaos.history import judge, read
from tests.chaos.load import Direct, Load, echo
from tests.chaos.rig import Rig, holders_of, place_by_hand

_TWO = {"a": 150.0, "b": 150.0}
_EVERYWHERE = {step: list(_TWO) for step in ("left", "right", "head")}
#: A pace that one of the two nodes could keep alone: what is measured is the change, not a queue.
_PER_S = 10.0


@pytest.mark.timeout(600)
@pytest.mark.short_on("mosquitto")
def test_where_a_warm_copy_is_a_killed_node_adds_little(
    build: Build, rng: random.Random, form: Form, say: Say, bar: Bar
) -> None:
    count, kills = (1_000, 10) if form == "long" else (100, 1)
    rig = build(nodes=_TWO, planners=())
    with Site(rig.settings) as site, Direct(rig.settings, rig.history) as direct:
        place_by_hand(site, "slow", _EVERYWHERE)
        questions = [echo(i, "slow") for i in range(count)]
        with Load([direct], questions, count=count // 4, per_s=_PER_S, rng=rng) as quiet:
            while quiet.lasts(0.5):
                continue
        assert rig.history.wait_until_all_answered(WAIT_S)
        calm = rig.history.verdict()
        with Load([direct], questions, count=count, per_s=_PER_S, rng=rng, prefix="k") as load:
            for _ in range(kills):
                victim = rng.choice(list(_TWO))
                load.lasts(count / _PER_S / kills / 3)
                rig.kill(victim)
                load.lasts(count / _PER_S / kills / 3)
                rig.start_agent(victim)
                place_by_hand(site, "slow", _EVERYWHERE)
            while load.lasts(0.5):
                continue
        assert rig.history.wait_until_all_answered(WAIT_S)
    entries = read(rig.history.path)
    verdict = judge([entry for entry in entries if entry.get("id", "k").startswith("k")])
    added = verdict.percentile_s(0.99) - calm.percentile_s(0.5)
    say(
        f"{rig.broker.kind}: {kills} kills add {added:.3f} s at p99; calm p50 {calm.percentile_s(0.5):.3f} s; {verdict}"
    )
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
    assert added < bar(1.0)


@pytest.mark.short_on("embedded")
def test_where_no_copy_is_the_task_is_back_after_one_load(build: Build, rng: random.Random, say: Say, bar: Bar) -> None:
    rig = build(spare=False)
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        with Direct(rig.settings, rig.history) as direct:
            direct.ask("before", echo(1))
            assert rig.history.wait_until_all_answered(WAIT_S)
            victim = rng.choice(sorted(holders_of(site, "noop")))
            logged = {name: len(rig.log(name)) for name in rig.processes}
            rig.kill(victim)
            killed = time.monotonic()
            direct.ask("after", echo(2))
            assert site.wait(lambda s: s.nodes.state(victim) == "lost", WAIT_S)
            detected = time.monotonic() - killed
            assert rig.history.wait_until_all_answered(WAIT_S)
            took = time.monotonic() - killed
            loading = sum(_loading_s(rig, name, since) for name, since in logged.items())
    verdict = rig.history.verdict()
    say(
        f"{rig.broker.kind}: detected after {detected:.2f} s, loading took {loading:.2f} s, answered after {took:.2f} s"
    )
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
    assert took < bar(detected + loading + 1.0)


def _loading_s(rig: Rig, name: str, since: int) -> float:
    return sum(float(s) for s in re.findall(r"event=module_loaded.* seconds=([\d.]+)", rig.log(name)[since:]))
