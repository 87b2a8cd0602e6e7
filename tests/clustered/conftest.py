"""A site whose processes are spread over the two nodes of a cluster of brokers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from s2m3.cluster import Cluster
from s2m3.schemas.settings import BrokerSettings
from tests.clustered.ejabberd import PASSWORD, USER, EjabberdCluster, find_ejabberd


class SpreadSite(Cluster):
    """Planner and agents, each at one of the two brokers; they are started by the test, in its order.

    Args:
        brokers: The cluster of brokers.
        nodes: Agent -> 0 or 1, the broker that it connects to.
        planner: The broker of the planner.
        folder: For logs.
    """

    def __init__(self, brokers: EjabberdCluster, nodes: dict[str, int], planner: int, folder: Path) -> None:
        super().__init__(dict.fromkeys(nodes, 150.0), planner=False, threads=1, folder=folder)
        self.broker = brokers  # type: ignore[assignment]  # started by a fixture: two of them, and no Mosquitto
        self.ports = {node: brokers.ports[at] for node, at in {**nodes, "planner": planner}.items()}
        self.environment |= {"S2M3_USERNAME": USER, "S2M3_PASSWORD": PASSWORD}
        self.settings = self.at(0)

    def at(self, number: int) -> BrokerSettings:
        """Returns the settings of somebody at one of the brokers."""
        return BrokerSettings(
            host="127.0.0.1",
            port=self.broker.ports[number],  # type: ignore[attr-defined]  # see above
            username=USER,
            password=PASSWORD,  # type: ignore[arg-type]  # pydantic makes a SecretStr of it
        )


SpreadOut = Callable[..., SpreadSite]


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[SpreadOut]:
    """Makes sites on a new cluster of brokers; they are ended, and the brokers, at the end of the test."""
    if find_ejabberd() is None:
        pytest.skip("ejabberd is not installed (Debian: apt install ejabberd)")
    with ExitStack() as stack:
        brokers = EjabberdCluster(tmp_path / "brokers")
        stack.callback(brokers.stop)
        brokers.start()

        def make(nodes: dict[str, int], planner: int) -> SpreadSite:
            site = SpreadSite(brokers, nodes, planner, tmp_path)
            stack.callback(site.stop)
            return site

        yield make
