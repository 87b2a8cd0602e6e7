"""`s2m3 drain`: a node that nobody can replace, and the way back: `--undo`."""

import subprocess

import pytest

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.orders import order
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S


def _drain(cluster: Cluster, node: str, *options: str) -> subprocess.CompletedProcess[str]:
    return s2m3("drain", node, *options, port=cluster.settings.port)


def _is_the_rest(node: str, site: Site) -> bool:
    """Whether a node holds nothing, and is no gateway, of a task that is ready."""
    plan, reported = site.plans.get(node), site.reported.get(node)
    holds = bool(plan and (plan.modules or plan.gateways)) or bool(reported and reported.modules)
    return not holds and site.answers("noop")


def _holders(site: Site) -> set[str]:
    """The nodes that the task's route names."""
    return {replica.node for step in site.routes["noop"].steps.values() for replica in step.replicas}


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
    assert "which no other node takes so far" in done.stderr
    assert "take it back: s2m3 drain c --undo" in done.stderr
    assert noop_site.wait(lambda s: s.nodes.state("c") == "draining", WAIT_S)
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
    noop_cluster.start_agent("a")
    moved = noop_site.wait(lambda s: s.ready("noop") and not s.reported["c"].modules, 2 * WAIT_S)
    assert moved, noop_cluster.log("planner")
    assert noop_client.ask("noop", left=3, right=4).value == [3, 4]


@pytest.mark.short_on("mosquitto")
def test_a_drained_node_takes_work_again_without_a_restart(noop_cluster: Cluster, noop_site: Site) -> None:
    boot = noop_site.nodes.boot("a")
    assert _drain(noop_cluster, "a", "--wait", f"{WAIT_S:g}").returncode == 0
    assert noop_site.wait(lambda s: s.nodes.state("a") == "draining" and _is_the_rest("a", s), WAIT_S)
    done = _drain(noop_cluster, "a", "--undo", "--wait", f"{WAIT_S:g}")
    assert (done.returncode, done.stdout) == (0, "a takes work again\n"), done.stderr
    assert noop_site.wait(lambda s: s.nodes.state("a") == "ready", WAIT_S)
    assert noop_site.nodes.boot("a") == boot
    for node in ("b", "c"):
        assert _drain(noop_cluster, node, "--wait", f"{WAIT_S:g}").returncode == 0, noop_cluster.log("planner")
    assert noop_site.wait(lambda s: s.gateway("noop") == "a" and s.ready("noop") and _holders(s) == {"a"}, WAIT_S)
    with Client(settings=noop_cluster.settings) as client:  # which knows no route from before
        assert set(client.ask("noop", left=1, right=2).route.values()) == {"a"}


@pytest.mark.short_on("mosquitto")
def test_a_drain_that_failed_is_taken_back(noop_cluster: Cluster, noop_client: Client, noop_site: Site) -> None:
    for node in ("a", "b", "c"):
        order(noop_site, "drain", node)
    assert noop_site.wait(lambda s: not s.nodes.ready, WAIT_S)
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
    for node in ("a", "b", "c"):
        assert _drain(noop_cluster, node, "--undo", "--wait", f"{WAIT_S:g}").returncode == 0
    assert noop_site.wait(lambda s: s.nodes.ready == {"a", "b", "c"} and s.answers("noop"), WAIT_S)
    again = _drain(noop_cluster, "a", "--undo")
    assert (again.returncode, again.stdout) == (0, "a is not drained: it takes work\n")


@pytest.mark.short_on("embedded")
def test_a_drain_is_taken_back_while_no_planner_runs(noop_cluster: Cluster, noop_site: Site) -> None:
    order(noop_site, "drain", "a")
    assert noop_site.wait(lambda s: s.nodes.state("a") == "draining", WAIT_S)
    noop_cluster.kill("planner")
    assert noop_site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
    done = _drain(noop_cluster, "a", "--undo", "--wait", f"{WAIT_S:g}")
    assert done.returncode == 0, done.stderr
    assert noop_site.wait(lambda s: s.nodes.state("a") == "ready", WAIT_S)
