"""Models placed on assumed devices: sizes from configurations, seconds from speeds, bytes as each model asks."""

import pytest

from s2m3.planner.solving.estimate import AssumedDevice, assumed_devices, estimated_instance
from s2m3.planner.solving.solve import solve
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BadDefinitionError, BadInputError, NoCapacityError
from s2m3.schemas.instance import Instance, PlacedModule
from s2m3.schemas.sizes import ANSWER_TOKENS

PI = AssumedDevice(id="pi", memory_mb=4000, gflops=60, gb_s=12, latency_ms=2, mbps=100)
DESK = AssumedDevice(id="desk", memory_mb=40_000, gflops=2000, gb_s=200, latency_ms=1, mbps=900)


def estimated(*models: str, dtype: str = "float32", source: str | None = None) -> Instance:
    return estimated_instance(shipped_catalogue(), models, [PI, DESK], dtype=dtype, source=source)


def module(instance: Instance, name: str) -> PlacedModule:
    return next(found for found in instance.modules if found.id == name)


def test_an_encoder_takes_its_operations_over_the_devices_speed() -> None:
    vision = module(estimated("clip-vit-b16"), "clip-vit-b16-vision")
    assert vision.seconds["pi"] == pytest.approx(35.13 / 60, rel=1e-3)
    assert vision.seconds["desk"] == pytest.approx(35.13 / 2000, rel=1e-3)
    assert vision.memory_mb == pytest.approx(344.8, abs=0.1)


def test_a_language_model_also_reads_its_weights_for_each_token() -> None:
    spec = shipped_catalogue().modules["llava-7b-decoder"]
    decoder = module(estimated("llava-7b", dtype="bfloat16"), "llava-7b-decoder")
    assert spec.cache_mb > 0
    assert decoder.memory_mb == pytest.approx(spec.memory_mb / 2 + spec.cache_mb)
    reading = ANSWER_TOKENS * spec.memory_mb / 2 / 1000 / 200
    assert decoder.seconds["desk"] == pytest.approx(spec.gflops / 2000 + reading)


def test_a_shared_tower_is_there_once_and_sends_what_the_hungriest_model_asks_for() -> None:
    alone = module(estimated("clip-vit-l14-336"), "clip-vit-l14-336-vision")
    both = estimated("clip-vit-l14-336", "llava-7b")
    assert len(both.modules) == len({found.id for found in both.modules}) == 4
    assert alone.output_kb == pytest.approx(3.072)
    assert module(both, "clip-vit-l14-336-vision").output_kb == pytest.approx(2359.3, abs=0.1)


def test_every_model_that_is_known_can_be_planned_without_weights() -> None:
    roomy = [DESK.model_copy(update={"memory_mb": 1e6})]
    for name in shipped_catalogue().models:
        solution = solve(estimated_instance(shipped_catalogue(), [name], roomy))
        assert solution.tasks[name].latency_s > 0


def test_what_does_not_fit_is_named_with_what_is_missing() -> None:
    with pytest.raises(NoCapacityError, match="llava-13b-decoder needs 5"):
        solve(estimated("llava-13b"))
    assert solve(estimated("llava-13b", dtype="int8")).placement["llava-13b-decoder"] == ["desk"]


def test_a_model_named_twice_is_one_task_asked_from_the_source() -> None:
    instance = estimated("clip-vit-b16", "clip-vit-b16", source="pi")
    assert [(task.id, task.source) for task in instance.tasks] == [("clip-vit-b16", "pi")]


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"no model .clip-b99.; there are: .*clip-vit-b16"):
        estimated("clip-b99")
    with pytest.raises(BadInputError, match="not 'int3'"):
        estimated("clip-vit-b16", dtype="int3")
    with pytest.raises(BadDefinitionError, match="source: unknown device 'moon'"):
        estimated("clip-vit-b16", source="moon")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "d.json: devices: not a list of devices"),
        ({"devices": []}, "d.json: devices: not a list of devices"),
        ({"devices": [{"id": "a", "memory_mb": 1, "gflops": 0, "gb_s": 1}]}, "d.json: devices.0.gflops: "),
        ({"devices": [{"id": "a", "memory_mb": 1, "gflops": 1}]}, "d.json: devices.0.gb_s: Field required"),
        ({"devices": [PI.model_dump(), 3]}, "d.json: devices.1: "),
        ({"devices": [PI.model_dump() | {"gflop": 1}]}, "d.json: devices.0.gflop: unknown key; did you mean gflops?"),
        ({"devices": [PI.model_dump() | {"memory_mb": "4000"}]}, "d.json: devices.0.memory_mb: Input should be"),
    ],
)
def test_a_wrong_file_of_devices_is_refused_with_the_key(document: dict[str, object], said: str) -> None:
    with pytest.raises(BadDefinitionError) as raised:
        assumed_devices(document, "d.json")
    assert raised.value.detail.startswith(said)


def test_assumed_devices_may_say_what_they_draw_and_carry_keys_of_their_users() -> None:
    noted = {"x-from": "a data sheet", **PI.model_dump(), "energy_w": 8, "idle_w": 3, "x-plug": {"any": [1]}}
    devices = assumed_devices({"x-note": 1, "devices": [noted]}, "d.json")
    instance = estimated_instance(shipped_catalogue(), ["clip-vit-b16"], devices, source="pi")
    placed = solve(instance, method="greedy").tasks["clip-vit-b16"]
    assert placed.energy is not None
    assert placed.energy.joules > placed.energy.above_idle > 0


def test_devices_come_as_they_are_assumed_and_an_unknown_model_is_answered_with_those_there_are() -> None:
    device = estimated("clip-vit-b16").devices[0]
    assert (device.id, device.memory_mb, device.latency_ms, device.mbps) == ("pi", 4000, 2, 100)
    with pytest.raises(BadInputError) as caught:
        estimated("nonsense")
    assert str(caught.value).endswith(f"no model 'nonsense'; there are: {', '.join(shipped_catalogue().models)}")
