"""The running planner on simulated sites of nodes that speak the protocol: tasks are added, nodes are lost."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from s2m3.broker.servers.launch import BrokerKind
from tests.conftest import WAIT_S

_BENCH = Path(__file__).parents[2] / "bench"


class Simulated(Protocol):
    """Starts a site of so many nodes, tasks and modules."""

    def __call__(self, nodes: int, tasks: int, modules: int) -> AbstractContextManager[Any]: ...


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, kind: BrokerKind) -> Simulated:
    monkeypatch.syspath_prepend(str(_BENCH))
    import simulation  # noqa: PLC0415  # of bench, which is no package

    def site(nodes: int, tasks: int, modules: int) -> AbstractContextManager[Any]:
        size = simulation.Size(nodes, tasks, modules)
        found: AbstractContextManager[Any] = simulation.simulation(
            size, reports_per_s=10.0, kind=kind, quiet_s=1.0, improved_s=1.0
        )
        return found

    return site


@pytest.mark.short_on("mosquitto")
@pytest.mark.timeout(WAIT_S * 4)
def test_a_site_of_thirty_nodes_serves_sixty_tasks_and_outlives_a_loss(simulated: Simulated) -> None:
    with simulated(30, 60, 24) as site:
        site.join()
        site.add_all()
        lost = site.lose(1)
        site.end()
        figures = site.figures
    assert "not_in_time" not in figures, figures
    assert figures["planner_offline"] == 0
    assert lost["routes_named"] > 0


@pytest.mark.long
@pytest.mark.timeout(WAIT_S * 8)
def test_a_site_that_is_planned_by_what_changed_outlives_losses_and_takes_one_task_more(simulated: Simulated) -> None:
    with simulated(150, 150, 140) as site:  # more modules x nodes than are planned whole each time
        site.join()
        site.add_all()
        lost = [site.lose(1) for _ in range(3)]
        site.add_one()
        lost.append(site.lose(15))
        site.end()
        figures = site.figures
    assert "not_in_time" not in figures, figures
    assert figures["planner_offline"] == 0
    assert all(one["routes_named"] > 0 for one in lost)
