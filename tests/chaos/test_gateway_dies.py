"""The gateway is killed while plain requests wait at it: the next gateway answers them all."""

import pytest

from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Form, Say
from tests.chaos.load import Plain, echo
from tests.chaos.rig import gateway_of


@pytest.mark.short_on("mosquitto")
@pytest.mark.timeout(400)
def test_plain_requests_outlive_their_gateway(build: Build, form: Form, say: Say) -> None:
    rounds = 20 if form == "long" else 2
    rig = build()
    with (
        Site(rig.settings) as site,
        Plain(rig.broker.port_v3, rig.settings.root, ["slow"], rig.history) as plain,
    ):
        rig.add(site, "slow", m.TaskSpec(model="slow"))
        for round_ in range(rounds):
            gateway = gateway_of(site, "slow")
            assert gateway is not None
            for i in range(100):  # more than a gateway works on at once: some wait in its session
                plain.ask(f"{round_}-{i}", echo(i, "slow"))
            assert rig.history.wait_until(lambda left: left < 95, WAIT_S)
            rig.kill(gateway)
            assert rig.history.wait_until_all_answered(WAIT_S), rig.history.verdict()
            rig.start_agent(gateway)
            assert site.wait(lambda s, n=gateway: s.nodes.state(n) == "ready", WAIT_S)  # type: ignore[misc]
            assert site.wait(lambda s: s.ready("slow") and gateway_of(s, "slow") is not None, WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {rounds} gateways killed; {verdict}")
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
