"""A GPU and a CPU on one host, and a small board: what is expected of each, and placements as brute force has them."""

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import place
from s2m3.planner.site.placement_instance import build_instance
from s2m3.planner.site.placer import placer
from s2m3.planner.solving.latency import transfer_s
from s2m3.planner.solving.problem import Problem
from s2m3.schemas.messages import ModuleReport, Reported
from tests.planner.naive import Placement, best_objective_s, latency_s, routes
from tests.planner_service.site import make_facts

#: node -> memory, GFLOP/s, dtype -> GFLOP/s, device, host, link (ms, Mbit/s)
LINK = {"latency_ms": 1.0, "mbps": 900.0}
GPU = {"device": "cuda:0", "host": "h", "gflops": 40_000.0, "speeds": {"float32": 40_000.0}, **LINK}
CPU = {"device": "cpu", "host": "h", "gflops": 200.0, "speeds": {"float32": 200.0}, **LINK}
BOARD = {"device": "cpu", "host": "b", "gflops": 20.0, "speeds": {"float32": 20.0}, "latency_ms": 2.0, "mbps": 90.0}


def site(*tasks: str, gpu: float = 8_000.0, cpu: float = 4_000.0, board: float = 1_000.0) -> ClusterState:
    cluster = make_facts(*tasks, nodes={"gpu": gpu, "cpu": cpu, "board": board})
    for node, facts in (("gpu", GPU), ("cpu", CPU), ("board", BOARD)):
        cluster.profiles[node] = cluster.profiles[node].model_copy(update=facts)
    return cluster


def run_in(cluster: ClusterState, node: str, **ms: float) -> None:
    """The node holds these modules and has measured them."""
    modules = {name.replace("_", "-"): ModuleReport(state="ready", ms=taken) for name, taken in ms.items()}
    cluster.reported[node] = Reported(boot="1", modules=modules)


def test_a_small_module_is_expected_to_be_faster_beside_an_accelerator_and_a_large_one_on_it() -> None:
    cluster = site()
    small, large = (cluster.catalogue.modules[name] for name in ("imagenet-linear", "whisper-tiny-en-encoder"))
    assert cluster.seconds(small, "cpu") < cluster.seconds(small, "gpu")
    assert cluster.seconds(large, "gpu") < cluster.seconds(large, "cpu") < cluster.seconds(large, "board")


def test_the_speed_that_counts_is_that_of_the_dtype_in_which_a_node_holds_a_module() -> None:
    cluster = site()
    spec = cluster.catalogue.modules["whisper-tiny-en-encoder"].model_copy(update={"gflops": 100_000.0})
    in_float32 = cluster.seconds(spec, "gpu")
    faster = {"dtype": "bfloat16", "speeds": {"float32": 40_000.0, "bfloat16": 400_000.0}}
    cluster.profiles["gpu"] = cluster.profiles["gpu"].model_copy(update=faster)
    assert cluster.seconds(spec, "gpu") == pytest.approx(in_float32 / 10)
    assert cluster.seconds(spec.model_copy(update={"dtype": "float32"}), "gpu") == pytest.approx(in_float32)


def test_what_was_measured_on_a_board_says_nothing_below_what_any_call_takes_on_an_accelerator() -> None:
    cluster = site()
    run_in(cluster, "board", imagenet_linear=2.0)
    spec = cluster.catalogue.modules["imagenet-linear"]
    assert cluster.seconds(spec, "cpu") == pytest.approx(0.0002)
    assert cluster.seconds(spec, "gpu") == pytest.approx(0.003)


def test_a_profile_of_an_older_release_has_its_one_speed() -> None:
    cluster = make_facts()
    spec = cluster.catalogue.modules["whisper-tiny-en-encoder"]
    assert cluster.seconds(spec, "a") == pytest.approx(spec.gflops / 100 / 0.3)


@pytest.mark.parametrize("tasks", [("classification",), ("retrieval",), ("transcription", "classification")])
@pytest.mark.parametrize("gpu_mb", [8_000.0, 60.0], ids=["room for all", "room for one"])
def test_placements_over_a_gpu_and_a_cpu_of_one_host_are_those_of_brute_force(
    tasks: tuple[str, ...], gpu_mb: float
) -> None:
    cluster = site(*tasks, gpu=gpu_mb)
    instance = build_instance(cluster, list(tasks), 0.0)
    found = place(cluster, placer(60.0)(True), 0.0)  # noqa: FBT003
    placement = {module: tuple(nodes) for module, nodes in found.modules.items()}
    reached = sum(
        float(task.weight) * float(min(latency_s(instance, task, route) for route in routes(task, placement)))
        for task in instance.tasks
    )
    assert reached == pytest.approx(best_objective_s(instance), rel=1e-6)


def test_a_module_that_was_measured_faster_on_the_cpu_of_the_same_host_is_placed_there() -> None:
    cluster = site("classification")
    cluster.tasks["classification"] = cluster.tasks["classification"].model_copy(update={"max_replicas": 1})
    run_in(cluster, "gpu", efficientnet_lite0=9.0, imagenet_linear=4.0)
    run_in(cluster, "cpu", efficientnet_lite0=30.0, imagenet_linear=0.4)
    instance = build_instance(cluster, ["classification"], 0.0)
    seconds = {module.id: module.seconds for module in instance.modules}
    assert (seconds["imagenet-linear"]["gpu"], seconds["imagenet-linear"]["cpu"]) == (0.004, 0.0004)
    (task,) = instance.tasks
    ways = {}
    for node in ("gpu", "cpu"):
        placement: Placement = {"efficientnet-lite0": ("gpu",), "imagenet-linear": (node,)}
        ways[node] = float(min(latency_s(instance, task, route) for route in routes(task, placement)))
    found = place(cluster, placer(60.0)(True), 0.0).modules["imagenet-linear"]  # noqa: FBT003
    assert found == [min(ways, key=lambda name: ways[name])]


def test_devices_of_one_host_share_its_link_and_moving_between_them_costs_what_it_carries() -> None:
    """Each has measured the same link, one while the other was busy on it; what moves goes out and comes back."""
    cluster = site("transcription")
    worse = {"latency_ms": 6.0, "mbps": 300.0}
    cluster.profiles["gpu"] = cluster.profiles["gpu"].model_copy(update=worse)
    instance = build_instance(cluster, ["transcription"], 0.0)
    links = {device.id: (device.latency_ms, device.mbps) for device in instance.devices}
    assert links == {"gpu": (1.0, 900.0), "cpu": (1.0, 900.0), "board": (2.0, 90.0)}
    kb = {module.id: module.output_kb for module in instance.modules}["whisper-tiny-en-encoder"]
    problem = Problem(instance)
    gpu, cpu, board = (problem.device_at[name] for name in ("gpu", "cpu", "board"))
    between = transfer_s(problem, kb, gpu, cpu)
    assert between == pytest.approx((1.0 + 1.0 + 8 * kb / 900.0) / 1000)
    assert transfer_s(problem, kb, gpu, gpu) == 0.0 < between < transfer_s(problem, kb, gpu, board)
