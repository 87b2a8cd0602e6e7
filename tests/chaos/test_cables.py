"""Bad cables: slow, cut, dropped, silent for a moment, flipping bits. What is lost on them is sent again."""

import random
from collections.abc import Callable

import pytest

from s2m3.schemas import messages as m
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Form, Say
from tests.chaos.load import Direct, Load, echo
from tests.chaos.proxy import Proxy
from tests.chaos.rig import Rig

_PARTIES = ("a", "b", "c", "planner", "client")


def _caller(rig: Rig) -> BrokerSettings:
    return rig.settings.model_copy(update={"port": rig.proxies["client"].port})


def _faults(rng: random.Random) -> list[Callable[[Proxy], None]]:
    return [
        Proxy.drop,
        Proxy.cut,
        Proxy.half_open,
        lambda proxy: proxy.delay(rng.uniform(0.05, 0.3)),
        lambda proxy: proxy.throttle(rng.uniform(20_000, 100_000)),
    ]


@pytest.mark.timeout(600)
@pytest.mark.short_on("embedded")
def test_requests_outlive_bad_cables(build: Build, rng: random.Random, form: Form, say: Say) -> None:
    count = 4_000 if form == "long" else 200
    rig = build(behind=_PARTIES)
    faults = 0
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        with (
            Direct(_caller(rig), rig.history) as direct,
            Load([direct], [echo(i) for i in range(count)], count=count, per_s=40.0, rng=rng) as load,
        ):
            while load.lasts(0.5):
                party, fault = rng.choice(_PARTIES), rng.choice(_faults(rng))
                rig.history.fault(f"{party}: {getattr(fault, '__name__', fault)}")
                fault(rig.proxies[party])
                load.lasts(rng.uniform(0.2, 1.5))
                rig.proxies[party].mend()
                faults += 1
            rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {faults} faults of cables; {verdict}")
    assert verdict.holds, verdict
    assert not verdict.errors, verdict


@pytest.mark.short_on("mosquitto")
def test_flipped_bits_end_connections_and_no_service(build: Build, rng: random.Random, say: Say) -> None:
    """MQTT has no checksum: an answer may come out wrong, or an error, but there is one, and all is well afterwards.

    What the flipped bits made of a retained document is told again with the node's next connection.
    """
    rig = build(behind=("a", "b", "c"))
    with Site(rig.settings) as site, Direct(rig.settings, rig.history) as direct:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        for proxy in rig.proxies.values():
            proxy.corrupt(0.05)
        with Load([direct], [echo(i, deadline_s=5.0) for i in range(150)], count=150, per_s=40.0, rng=rng) as load:
            while load.lasts(0.5):
                continue
        for proxy in rig.proxies.values():
            proxy.mend()
        assert rig.history.wait_until_all_answered(WAIT_S)
        verdict = rig.history.verdict()
        for proxy in rig.proxies.values():
            proxy.drop()
        assert site.wait(lambda s: s.nodes.ready == {"a", "b", "c"} and s.ready("noop"), WAIT_S), rig.log("a")
        direct.ask("after", echo(7))
        assert rig.history.wait_until_all_answered(WAIT_S)
        rig.check()
    flipped = sum(proxy.corrupted for proxy in rig.proxies.values())
    say(f"{rig.broker.kind}: {flipped} bits flipped; {verdict}")
    assert flipped
    assert not verdict.unanswered
    assert not verdict.duplicates
    assert "after" not in rig.history.verdict().wrong
