"""Of a node with torch and one without, the planner takes the one that is measured to be faster and where it fits."""

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import place
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ModuleReport
from s2m3.schemas.parts import PartStock, part_key
from tests.planner_service.site import hold, make_facts
from tests.planner_service.test_placement import MEND, SOLVE

ENCODER, HEAD = "efficientnet-lite0", "imagenet-linear"
SPECS = [shipped_catalogue().modules[name] for name in (ENCODER, HEAD)]


def site(*, tower_ms: float, light_ms: float, light_mb: float, measured_mb: float | None) -> ClusterState:
    """A node with torch, and one that serves the module of an export; both have run it."""
    cluster = make_facts("classification", nodes={"tower": 1000.0, "light": light_mb})
    exported = {spec.class_ for spec in SPECS}
    keys = [part_key(spec, "onnx") for spec in SPECS]
    cluster.profiles["light"] = cluster.profiles["light"].model_copy(
        update={
            "classes": [name for name in cluster.profiles["light"].classes if name not in exported],
            "exported": sorted(exported),
            "runtimes": ["onnx"],
            "parts": PartStock(keys=keys),
        }
    )
    for node, ms, runtime in (("tower", tower_ms, "torch"), ("light", light_ms, "onnx")):
        hold(cluster, node, ENCODER)
        report = cluster.reported[node].modules[ENCODER]
        update = {"ms": ms, "runtime": runtime, "memory_mb": measured_mb or report.memory_mb}
        _report(cluster, node, report.model_copy(update=update))
    return cluster


def _report(cluster: ClusterState, node: str, report: ModuleReport) -> None:
    cluster.reported[node] = cluster.reported[node].model_copy(update={"modules": {ENCODER: report}})


@pytest.mark.parametrize("improve", [False, True])
@pytest.mark.parametrize(
    ("tower_ms", "light_ms", "light_mb", "measured_mb", "chosen"),
    [
        pytest.param(90.0, 30.0, 500.0, None, "light", id="ONNX Runtime is faster"),
        pytest.param(30.0, 90.0, 500.0, None, "tower", id="torch is faster"),
        pytest.param(90.0, 30.0, 10.0, None, "tower", id="it does not fit where it is faster"),
        pytest.param(90.0, 30.0, 30.0, None, "light", id="it fits by its estimate"),
        pytest.param(90.0, 30.0, 30.0, 40.0, "tower", id="it does not fit by what was measured"),
    ],
)
def test_the_faster_runtime_that_fits_serves(
    tower_ms: float, light_ms: float, light_mb: float, measured_mb: float | None, chosen: str, *, improve: bool
) -> None:
    cluster = site(tower_ms=tower_ms, light_ms=light_ms, light_mb=light_mb, measured_mb=measured_mb)
    found = place(cluster, SOLVE if improve else MEND, 0.0)
    assert found.errors == {}
    assert found.modules[ENCODER] == [chosen]
