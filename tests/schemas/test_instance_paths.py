"""Values of an instance document are changed by path; a wrong path says where it ends and what is there."""

from typing import Any

import pytest

from s2m3.schemas.errors import BadInputError, NoCapacityError
from s2m3.schemas.instance import parse_instance
from s2m3.schemas.instance_paths import read_sweep, with_value, without_device

DOCUMENT: dict[str, Any] = {
    "devices": [{"id": "pi5", "memory_mb": 900, "mbps": 100}, {"id": "desk.top", "memory_mb": 900}],
    "modules": [
        {"id": "vit.b16", "memory_mb": 340, "seconds": {"pi5": 0.9, "desk.top": 0.06}},
        {"id": "cosine", "memory_mb": 1, "seconds": {"pi5": 0.001}},
    ],
    "tasks": [{"id": "t", "source": "pi5", "prefer": ["pi5"], "steps": [{"id": "image", "module": "vit.b16"}]}],
}


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("devices.pi5.mbps", 10, lambda i: i.devices[0].mbps),
        ("devices.desk.top.mbps", 10, lambda i: i.devices[1].mbps),  # ids may have dots; the key was not there
        ("modules.vit.b16.seconds.desk.top", 2, lambda i: i.modules[0].seconds["desk.top"]),
        ("modules.cosine.seconds.desk.top", 3, lambda i: i.modules[1].seconds["desk.top"]),
        ("devices.*.memory_mb", 7, lambda i: sum(device.memory_mb for device in i.devices) / 2),
        ("tasks.t.source", None, lambda i: i.tasks[0].source),
        ("max_replicas", 2, lambda i: i.max_replicas),
    ],
)
def test_a_value_is_set_by_its_path_in_a_copy(path: str, value: object, found: Any) -> None:
    before = parse_instance(DOCUMENT)
    assert found(parse_instance(with_value(DOCUMENT, path, value))) == value
    assert parse_instance(DOCUMENT) == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("devices.pi6.mbps", r"no 'pi6'; there are: pi5, desk.top"),
        ("device.pi5.mbps", r"no 'device'; there are: devices, modules, tasks"),
        ("devices.pi5", r"an object, not a value; its keys are id, memory_mb, mbps"),
        ("devices", r"not a value; what is in it: pi5, desk.top"),
        ("modules.cosine.seconds", r"not a value; what is in it: pi5"),
        ("devices.pi5.mbps.more", r"nothing below a value: more"),
        ("tasks.t.prefer", r"not a value; what is in it: pi5"),
        ("tasks.t.prefer.0", r"nothing below a list of values: pi5"),
        ("tasks.t.prefer.*", r"nothing below a list of values: pi5"),
        ("tasks.t.steps.image.zzz", r"unknown key; known are id, module, after"),
    ],
)
def test_a_wrong_path_says_what_is_there(path: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        parse_instance(with_value(DOCUMENT, path, 1))


def test_a_sweep_is_read_with_numbers_as_numbers() -> None:
    assert read_sweep("tasks.t.source=pi5, null,1e3") == ("tasks.t.source", ("pi5", None, 1000.0))
    for wrong in ("devices.pi5.mbps", "=1,2", "devices.pi5.mbps=1,,2", "devices.pi5.mbps="):
        with pytest.raises(BadInputError, match="not PATH=VALUE"):
            read_sweep(wrong)
    for wrong in ("tasks.t.x-note=[1]", 'devices.pi5.mbps={"a":1}'):
        with pytest.raises(BadInputError, match="not a list or an object"):
            read_sweep(wrong)


def test_a_device_that_is_gone_runs_and_asks_nothing() -> None:
    instance = parse_instance(without_device(with_value(DOCUMENT, "modules.cosine.seconds.desk.top", 1), "pi5"))
    assert [device.id for device in instance.devices] == ["desk.top"]
    assert instance.tasks[0].source is None
    assert all(module.seconds.keys() == {"desk.top"} for module in instance.modules)
    with pytest.raises(NoCapacityError, match="without pi5 no device can run cosine"):
        without_device(DOCUMENT, "pi5")
    with pytest.raises(BadInputError, match=r"no such device; there are: pi5, desk\.top"):
        without_device(DOCUMENT, "pi6")


def test_keys_of_ones_own_are_passed_over_in_every_object_but_not_among_ids() -> None:
    noted = with_value(DOCUMENT, "devices.pi5.x-note", "measured in May") | {"x-source": {"any": ["thing"]}}
    assert parse_instance(noted) == parse_instance(DOCUMENT)
    odd = {"id": "x-ray", "memory_mb": 1}
    module = {"id": "m", "memory_mb": 1, "seconds": {"x-ray": 0.5}}
    assert parse_instance({"devices": [odd], "modules": [module], "tasks": []}).modules[0].seconds == {"x-ray": 0.5}


def test_a_device_that_alone_runs_a_tasks_best_model_may_go_where_another_stands_in() -> None:
    lone = with_value(DOCUMENT, "modules.cosine.seconds.desk.top", 1)
    stand_in = {"id": "other", "steps": [{"id": "s", "module": "cosine"}]}
    tasks = [{**task, "stand_ins": [stand_in]} for task in lone["tasks"]]
    for module in lone["modules"]:
        if module["id"] != "cosine":
            module["seconds"] = {"pi5": 1.0}
    instance = parse_instance(without_device({**lone, "tasks": tasks}, "pi5"))
    assert {module.id: module.seconds for module in instance.modules} == {"vit.b16": {}, "cosine": {"desk.top": 1.0}}
