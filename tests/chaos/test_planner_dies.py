"""The planner is killed under load: no request notices, and the next one does what was left undone."""

import random
import time

import pytest

from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Bar, Build, Say
from tests.chaos.load import Direct, Load, Plain, echo
from tests.chaos.rig import Rig, holders_of

_PLANNERS = ("planner", "standby")


def _active(rig: Rig, epoch: int) -> str:
    """Started at once, both may have begun: the one whose epoch all follow."""
    return next(name for name in _PLANNERS if f"event=planner_up epoch={epoch} " in rig.log(name))


def _is_online_since(site: Site, epoch: int) -> bool:
    return site.planner is not None and site.planner.state == "online" and site.planner.epoch > epoch


@pytest.mark.short_on("mosquitto")
def test_no_request_fails_when_the_planner_is_killed_and_the_standby_takes_over(
    build: Build, rng: random.Random, say: Say, bar: Bar
) -> None:
    rig = build(planners=_PLANNERS, spare=False)
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        with (
            Direct(rig.settings, rig.history) as direct,
            Plain(rig.broker.port_v3, rig.settings.root, ["noop"], rig.history) as plain,
            Load([direct, plain], [echo(i) for i in range(200)], count=200, per_s=40.0, rng=rng, most_open=100) as load,
        ):
            load.lasts(1.0)
            old = site.planner
            assert old is not None
            killed = time.monotonic()
            rig.kill(_active(rig, old.epoch))
            victim = rng.choice(sorted(holders_of(site, "noop")))
            rig.kill(victim)  # nobody plans now: its modules come back when somebody does
            assert site.wait(lambda s: _is_online_since(s, old.epoch), WAIT_S)
            took = time.monotonic() - killed
            assert site.wait(lambda s: s.ready("noop") and victim not in holders_of(s, "noop"), WAIT_S)
            while load.lasts(0.5):
                continue
            rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: a second planner after {took:.2f} s; {verdict}")
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
    assert took < bar(10.0)
