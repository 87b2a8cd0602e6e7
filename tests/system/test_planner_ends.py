"""A planner that is told to end says so and stays silent: the next plans at once, and does not stand by for ever."""

import signal

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from tests.conftest import WAIT_S


def _is(site: Site, state: str) -> bool:
    return site.planner is not None and site.planner.state == state


@pytest.mark.short_on("embedded")
def test_a_planner_ended_by_sigterm_is_followed_by_the_next(kind: BrokerKind) -> None:
    with Cluster({}, kind=kind) as cluster, Site(cluster.settings) as site:
        assert site.wait(lambda s: _is(s, "online"), WAIT_S)
        assert site.planner is not None
        epoch = site.planner.epoch
        cluster.processes["planner"].send_signal(signal.SIGTERM)
        assert cluster.processes["planner"].wait(WAIT_S) == 0
        assert site.wait(lambda s: _is(s, "offline"), WAIT_S)
        cluster.start_planner()
        assert site.wait(lambda s: _is(s, "online"), WAIT_S), cluster.log("planner")
        assert site.planner.epoch > epoch
