"""A camera at 5 real pictures a second, bound to a task that two nodes may serve: the short form of bench/camera.py."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.cluster import Cluster
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller

pytestmark = pytest.mark.short_on("mosquitto")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, zoo_cluster: Cluster) -> Iterator[Any]:
    """The benchmark; what its run leaves on the site is removed at the end."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    camera = import_module("camera")
    yield camera
    with Site(zoo_cluster.settings) as site:
        site.publish(topics.BIND, b"", binding="porch")
        site.publish(topics.TASK, b"", task="porch")
        assert site.wait(lambda s: "porch" not in s.reports and "porch" not in s.tasks, WAIT_S)
    with PlainCaller(zoo_cluster.broker.port_v3, paho.MQTTv311, ("none",)) as caller:
        caller.client.publish(camera.TOPIC, b"", qos=1, retain=True).wait_for_publish(WAIT_S)


def test_a_camera_is_answered_at_the_limited_rate_with_its_newest_picture(zoo_cluster: Cluster, bench: Any) -> None:
    with Site(zoo_cluster.settings) as site:
        found = bench.watched(zoo_cluster, site, seconds=4, per_second=5, every_s=1)
    assert found["published"] == 20
    # one a second, the first at once; the bridge's clock and ours may begin a second apart
    assert 1 <= found["answered"] <= found["lasted_s"] + 2
    assert found["failed"] == 0
    assert found["right"] == found["answered"]
    assert found["in_order"]
    report = found["report"]
    assert report["received"] == 20
    assert report["received"] - report["dropped"] - report["answered"] <= 2  # one under way, one that waits its turn
