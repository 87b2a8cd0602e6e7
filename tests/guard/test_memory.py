"""A node whose process takes more than its budget gives up what is spare, and never a last copy."""

import pytest

from s2m3.client import Client
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.guard.conftest import FaultyCluster

pytestmark = pytest.mark.short_on("embedded")

#: Memory is looked at each two seconds, twice before anything is done.
SLOW_S = 4 * WAIT_S


def holders(site: Site) -> set[str]:
    return {replica.node for replica in site.routes["faulty"].steps["left"].replicas}


def gives_up(site: Site, node: str) -> float:
    return site.reported[node].pressure_mb if node in site.reported else 0.0


def test_a_copy_that_another_node_has_too_is_unloaded(pair: FaultyCluster, client: Client) -> None:
    with Site(pair.settings) as site:
        assert site.wait(lambda s: holders(s) == {"a", "b"}, WAIT_S), "spare memory holds a second copy"
        pressed = client.ask("faulty", left="hold 150", right=0).route["left"]
        (other,) = {"a", "b"} - {pressed}
        assert site.wait(lambda s: holders(s) == {other}, SLOW_S), pair.log(pressed)
        assert gives_up(site, pressed) > 0
        assert site.wait(lambda s: "faulty-left" not in s.reported[pressed].modules, WAIT_S)
    assert "memory_pressure" in pair.log(pressed)
    assert client.ask("faulty", left=1, right=2).value == [1, 2]


def test_a_last_copy_stays_whatever_its_node_takes(lone: FaultyCluster, client: Client) -> None:
    with Site(lone.settings) as site:
        client.ask("faulty", left="hold 150", right=0)
        assert site.wait(lambda s: gives_up(s, "a") > 0, SLOW_S), lone.log("a")
        plans = site.plans["a"].revision
        assert client.ask("faulty", left=1, right=2).value == [1, 2]
        assert holders(site) == {"a"}
        assert site.plans["a"].revision == plans
    assert lone.log("a").count("module_unloaded") == 0


def test_a_module_that_fits_only_once_another_has_left_waits_for_that_and_does_not_fail(lone: FaultyCluster) -> None:
    """A plan that takes one away and gives another in its place; what leaves serves for a second more."""
    lone.kill("planner")
    with Site(lone.settings) as site:
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
        small = next(spec for spec in site.plans["a"].modules if spec.id == "faulty-left")
        roomy = round(0.6 * (site.reported["a"].free_mb + small.memory_mb))
        for revision, name in enumerate(("faulty-one", "faulty-two")):
            big = small.model_copy(update={"id": name, "prefix": name, "memory_mb": roomy})
            plan = m.Plan(epoch=site.plans["a"].epoch + 1, revision=revision, modules=[big])
            site.publish(topics.PLAN, plan.encode(), node="a")
            assert site.wait(lambda s, n=name: is_ready(s, n), WAIT_S), lone.log("a")  # type: ignore[misc]
        assert site.wait(lambda s: set(s.reported["a"].modules) == {"faulty-two"}, WAIT_S)


def is_ready(site: Site, module: str) -> bool:
    """Whether node a holds it; told as failed, it never will."""
    report = site.reported["a"].modules.get(module)
    assert report is None or report.state != "failed", report
    return report is not None and report.state == "ready"
