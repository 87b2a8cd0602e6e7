"""Which epoch the nodes of a site follow: an honest majority decides, and who is gone has no say."""

import pytest

from s2m3.schemas.messages import Reported
from tests.planner_service.site import lose, make_facts


@pytest.mark.parametrize(
    ("epochs", "followed"),
    [
        ({}, 0),
        ({"a": 7}, 7),
        ({"a": 7, "b": 0}, 7),  # half: one lived through it, the other one is new
        ({"a": 7, "b": 3, "c": 3}, 3),  # one alone moves nobody
        ({"a": 7, "b": 9, "c": 3}, 7),
    ],
)
def test_the_epoch_that_half_of_the_nodes_follow_or_more_is_the_sites(epochs: dict[str, int], followed: int) -> None:
    cluster = make_facts(nodes=dict.fromkeys("abc", 1000.0))
    for node, epoch in epochs.items():
        cluster.reported[node] = Reported(boot="1", epoch=epoch)
    assert cluster.epoch_followed() == followed


def test_what_a_lost_node_followed_does_not_count() -> None:
    cluster = make_facts(nodes=dict.fromkeys("ab", 1000.0))
    cluster.reported = {"a": Reported(boot="1", epoch=9), "b": Reported(boot="1", epoch=3)}
    lose(cluster, "a")
    assert cluster.epoch_followed() == 3
