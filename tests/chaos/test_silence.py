"""Nodes that say nothing: frozen, cut off, stalled, or one branch that never answers. Each is noticed, and told."""

import random
import time

import pytest

from s2m3.client import Client
from s2m3.schemas import messages as m
from s2m3.schemas.errors import RequestTimeoutError
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Bar, Build, Say
from tests.chaos.load import Direct, Load, echo
from tests.chaos.rig import Rig, holders_of, place_by_hand, seconds_until
from tests.frozen import agent_of

#: One and a half keepalives of 5 s.
_SEEN_S = 7.5
_ROUNDS = 4


@pytest.mark.parametrize("how", ["frozen", pytest.param("cut off", marks=pytest.mark.long)])
@pytest.mark.short_on("mosquitto")
def test_a_silent_node_is_taken_for_lost_and_a_request_that_met_it_is_answered(
    build: Build, rng: random.Random, say: Say, bar: Bar, how: str
) -> None:
    rig = build(behind=("a", "b", "c"))
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        victim = rng.choice(sorted(holders_of(site, "noop")))
        with (
            Direct(rig.settings, rig.history) as direct,
            Load([direct], [echo(i) for i in range(200)], count=200, per_s=20.0, rng=rng) as load,
        ):
            if how == "frozen":
                rig.freeze(victim)
            else:
                rig.pull(victim)
            took = seconds_until(site, lambda s: s.nodes.state(victim) == "lost")
            load.stop()
            assert rig.history.wait_until_all_answered(WAIT_S)
        if how == "frozen":
            rig.thaw(victim)
        else:
            rig.proxies[victim].mend()
        assert site.wait(lambda s: s.nodes.state(victim) == "ready", WAIT_S), rig.log(victim)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: a {how} node was lost after {took:.1f} s; {verdict}")
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
    assert took < bar(_SEEN_S)


@pytest.mark.short_on("mosquitto")
def test_a_branch_that_never_answers_is_a_timeout_that_names_it_and_its_memory_is_freed(build: Build, say: Say) -> None:
    """Each step at a node of its own: the head's keeps the other branch of 10 requests, 1 MB each, four times.

    What one round took the process keeps, for the next one: kept by the joins it would be four times as much.
    """
    nodes = dict.fromkeys(("left", "right", "head"), 400.0)
    rig = build(nodes=nodes, planners=(), keepalive_s=30)  # the broker does not miss it before we are through
    with Site(rig.settings) as site, Client(settings=rig.settings) as client:
        place_by_hand(site, "noop", {"left": ["left"], "right": ["right"], "head": ["head"]})
        assert client.ask("noop", left=1, right=2).value == [1, 2]
        before = _rss_mb(rig, "head")
        rig.freeze("left")
        named: set[tuple[str | None, str | None]] = set()
        # Of a busy machine the caller's own deadline may be heard first, which names nobody.
        for round_ in range(10):
            if round_ >= _ROUNDS and ("left", "left") in named:
                break
            replies = [client.submit("noop", left=1, right=b"x" * 1_000_000, deadline_s=3.5) for _ in range(10)]
            for reply in replies:
                error = reply.exception(WAIT_S)
                assert isinstance(error, RequestTimeoutError)
                named.add((error.step, error.node))
        after = _falls_below(rig, "head", before + 30)
    say(f"{rig.broker.kind}: the head's node had {before:.0f} MB, and {after:.0f} MB after four times 10 MB of joins")
    assert ("left", "left") in named
    assert named <= {("left", "left"), (None, None)}
    assert after < before + 30


def _falls_below(rig: Rig, node: str, mb: float) -> float:
    """Returns its memory once it is less, or after a while what it is: the last answer may come before all is freed."""
    ends = time.monotonic() + WAIT_S
    while (now_mb := _rss_mb(rig, node)) >= mb and time.monotonic() < ends:
        time.sleep(0.05)
    return now_mb


def _rss_mb(rig: Rig, node: str) -> float:
    rss: int = agent_of(rig.processes[node]).memory_info().rss
    return rss / 1e6


@pytest.mark.short_on("embedded")
def test_1500_requests_to_a_stalled_module_are_refused_as_busy_and_none_is_dropped(build: Build, say: Say) -> None:
    rig = build()
    with Site(rig.settings) as site:
        rig.add(site, "stalled", m.TaskSpec(model="stalled"))
        with Direct(rig.settings, rig.history) as direct:
            for i in range(1500):
                direct.ask(str(i), echo(i, "stalled", deadline_s=5.0))
            assert rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {verdict}")
    assert verdict.holds, verdict
    assert set(verdict.errors) <= {"busy", "timeout"}
    assert verdict.errors["busy"]
