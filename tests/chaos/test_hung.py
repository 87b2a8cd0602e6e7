"""Code that keeps Python's lock for ever: no thread of the agent runs any more, and only its supervisor can end it."""

import time
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.schemas.errors import S2M3Error
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Say
from tests.frozen import agent_of
from tests.guard.conftest import FaultyCluster, ready

#: The supervisor ends an agent whose loop has stood still for a minute; it looks each second.
_ENDED_S = 60.0


@pytest.mark.timeout(300)
@pytest.mark.long
def test_an_agent_whose_module_keeps_pythons_lock_is_ended_by_its_supervisor_and_serves_again(
    kind: BrokerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.setenv("FAULTY_MODULES", "1")
    with FaultyCluster({"a": 150.0}, kind=kind, folder=tmp_path) as cluster:
        ready(cluster, "faulty", 1)
        with Client(settings=cluster.settings) as client, Site(cluster.settings) as site:
            agent, began = agent_of(cluster.processes["a"]), time.monotonic()
            with pytest.raises(S2M3Error):
                client.ask("faulty", left="spin", right=0, deadline_s=2)
            assert site.wait(lambda s: s.nodes.state("a") == "lost", WAIT_S)
            lost_s = time.monotonic() - began
            assert site.wait(lambda _: "agent_died" in cluster.log("a"), _ENDED_S + WAIT_S), cluster.log("a")
            ended_s = time.monotonic() - began
            assert site.wait(lambda s: s.nodes.state("a") == "ready" and s.ready("faulty"), WAIT_S), cluster.log("a")
            assert client.ask("faulty", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
            served_s = time.monotonic() - began
    say(f"{kind}: missed after {lost_s:.1f} s, ended after {ended_s:.1f} s, serving again after {served_s:.1f} s")
    assert not agent.is_running()
    assert "its loop has stood still for 60 s" in cluster.log("a")
    assert ended_s >= _ENDED_S
