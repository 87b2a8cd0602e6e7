"""One of two clustered brokers is killed under load: the processes that were there go on at the other."""

import time

import pytest

from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.errors import S2M3Error
from s2m3.snapshot import Site
from tests.clustered.conftest import SpreadOut
from tests.conftest import WAIT_S


@pytest.mark.long
@pytest.mark.timeout(900)
def test_clients_requests_outlive_a_broker_of_the_cluster(
    spread: SpreadOut, capsys: pytest.CaptureFixture[str]
) -> None:
    site = spread({"a": 0, "b": 1}, 0)
    first, second = site.broker.ports  # type: ignore[attr-defined]
    site.environment["S2M3_FALLBACK"] = f"127.0.0.1:{second},127.0.0.1:{first}"
    for party in ("a", "b"):
        site.start_agent(party)
    site.start_planner()
    there = site.at(1).model_copy(update={"fallback": f"127.0.0.1:{first}"})
    with Site(site.at(1), roll_call="test") as seen:
        assert seen.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S), site.log("planner")
        add_task(seen, "noop", m.TaskSpec(model="noop", max_replicas=2))
        assert seen.wait(lambda s: s.nodes.ready == {"a", "b"} and s.answers("noop"), WAIT_S), site.log("planner")
    failed: list[str] = []
    with Client(settings=there) as client:
        client.ask("noop", left=0, right=0, deadline_s=WAIT_S)
        began = time.monotonic()
        for number in range(1_000):
            if number == 300:
                site.broker.kill(0)  # type: ignore[call-arg]
            try:
                answer = client.ask("noop", left=number, right=number, deadline_s=60)
                assert answer.value == [number, number]
            except S2M3Error as error:
                failed.append(str(error))
        took = time.monotonic() - began
    with capsys.disabled():
        print(f"\n    1,000 requests in {took:.1f} s, {len(failed)} failed: {failed[:3]}")  # noqa: T201  # the figure
    assert not failed
