"""`s2m3 drain`: a node that is not there, and one that nobody can replace."""

import subprocess

import pytest

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S


def _drain(cluster: Cluster, node: str, *options: str) -> subprocess.CompletedProcess[str]:
    return s2m3("drain", node, *options, port=cluster.settings.port)


@pytest.mark.short_on("embedded")
def test_the_holder_of_the_last_copy_goes_on_serving_and_the_command_says_so(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    for node in ("a", "b"):
        noop_cluster.kill(node)
    alone = noop_site.wait(lambda s: s.nodes.lost == {"a", "b"} and s.ready("noop"), 2 * WAIT_S)
    assert alone, noop_cluster.log("planner")
    done = _drain(noop_cluster, "c", "--wait", "3")
    assert done.returncode == 1
    assert "after 3 s it still holds" in done.stderr
    assert noop_site.nodes.state("c") == "draining"
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
    noop_cluster.start_agent("a")
    moved = noop_site.wait(lambda s: s.ready("noop") and not s.reported["c"].modules, 2 * WAIT_S)
    assert moved, noop_cluster.log("planner")
    assert noop_client.ask("noop", left=3, right=4).value == [3, 4]
