"""The running planner on a small simulated site: 30 nodes that speak the protocol, 60 tasks, one node lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s2m3.broker.servers.launch import BrokerKind
from tests.conftest import WAIT_S

_BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, kind: BrokerKind) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(_BENCH))
    import simulation  # noqa: PLC0415  # of bench, which is no package

    with simulation.simulation(
        simulation.Size(30, 60, 24), reports_per_s=10.0, kind=kind, quiet_s=1.0, improved_s=1.0
    ) as made:
        yield made


@pytest.mark.short_on("mosquitto")
@pytest.mark.timeout(WAIT_S * 4)
def test_a_site_of_thirty_nodes_serves_sixty_tasks_and_outlives_a_loss(site: Any) -> None:
    site.join()
    site.add_all()
    lost = site.lose(1)
    site.end()
    figures = site.figures
    assert "not_in_time" not in figures, figures
    assert figures["planner_offline"] == 0
    assert lost["routes_named"] > 0
