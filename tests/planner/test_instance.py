"""A wrong instance file is refused with the file and the key."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.instance import load_instance, parse_instance

GOOD: dict[str, Any] = {
    "devices": [{"id": "pi5", "memory_mb": 4096, "latency_ms": 2.0, "mbps": 100}],
    "modules": [
        {"id": "vit", "memory_mb": 340, "input_kb": 120, "output_kb": 2, "seconds": {"pi5": 0.9}},
        {"id": "cosine", "memory_mb": 1, "seconds": {"pi5": 0.001}},
    ],
    "tasks": [
        {
            "id": "t",
            "source": "pi5",
            "steps": [{"id": "image", "module": "vit"}, {"id": "head", "module": "cosine", "after": ["image"]}],
        }
    ],
}


def _with(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one value changed, by a dotted path."""
    document = deepcopy(GOOD)
    *parents, last = path.split(".")
    at: Any = document
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return document


def test_the_good_one_is_read() -> None:
    instance = parse_instance(GOOD)
    assert instance.max_replicas == 1
    assert instance.tasks[0].weight == 1.0
    assert instance.tasks[0].rate is None


STEP = {"id": "image", "module": "vit"}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("modules.0.seconds", {}, "modules.vit.seconds: no device can run it"),
        ("modules.0.seconds", {"pc": 1.0}, "modules.vit.seconds: unknown device 'pc'"),
        ("devices.0", {"id": "pi5", "memory_mb": 1, "energy_w": 3, "idle_w": 4}, "idle_w 4 is more than energy_w 3"),
        ("modules.0.memory_mb", -1, "modules.0.memory_mb"),
        ("modules.0.output_kb", -0.5, "modules.0.output_kb"),
        ("modules.0.seconds", {"pi5": -1}, "modules.0.seconds.pi5"),
        ("modules.0.memory_mb", float("nan"), "modules.0.memory_mb"),
        ("modules.0.seconds", {"pi5": float("inf")}, "modules.0.seconds.pi5"),
        ("modules.0.memory_mb", "340", "modules.0.memory_mb"),
        ("modules.1.id", "vit", "modules: 'vit' is there twice"),
        ("modules.0.size", 3, "modules.0.size"),
        ("devices", [], "devices"),
        ("devices.0.mbps", 0, "devices.0.mbps"),
        ("devices.0.memory_mb", True, "devices.0.memory_mb"),
        ("max_replicas", 0, "max_replicas"),
        ("tasks.0.source", "pc", "tasks.t.source: unknown device 'pc'"),
        ("tasks.0.weight", -1, "tasks.0.weight"),
        ("tasks.0.rate", -1, "tasks.0.rate"),
        ("tasks.0.steps", [], "tasks.0.steps"),
        ("tasks.0.steps.0.module", "vat", "tasks.t.steps.image.module: unknown module 'vat'"),
        ("tasks.0.steps.1.after", ["picture"], "tasks.t.steps.head.after: unknown step 'picture'"),
        ("tasks.0.steps.1.after", ["image", "image"], "tasks.t.steps.head.after"),
        ("tasks.0.steps.0", {**STEP, "after": ["head"]}, "a cycle"),
        ("tasks.0.steps.0", {**STEP, "after": ["image"]}, "a cycle"),
        ("tasks.0.steps.1.after", [], "two heads: head, image"),
        ("tasks.0.steps.1.id", "image", "steps: 'image' is there twice"),
        ("tasks.0.wieght", 1.0, "tasks.0.wieght: unknown key; did you mean weight?"),
        ("tasks.0.steps.0.modul", "vit", "did you mean module?"),
        ("devices.0.mpbs", 100, "did you mean mbps?"),
        ("max_replica", 1, "did you mean max_replicas?"),
    ],
)
def test_a_mistake_is_named_with_its_key(path: str, value: Any, said: str) -> None:
    with pytest.raises(BadDefinitionError) as caught:
        parse_instance(_with(path, value), "home.json")
    assert caught.value.detail.startswith("home.json: ")
    assert said.replace("head, image", "") in caught.value.detail


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"devices": 1, "devices": 2}', "'devices' is there twice"),
        (json.dumps(_with("modules.0.memory_mb", float("nan"))).encode(), "modules.0.memory_mb"),
    ],
)
def test_a_file_that_is_no_instance_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "home.json"
    file.write_bytes(content)
    with pytest.raises(BadDefinitionError, match=r"home\.json") as caught:
        load_instance(file)
    assert said in caught.value.detail


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDefinitionError, match=r"nowhere\.json: cannot be read"):
        load_instance(tmp_path / "nowhere.json")


def test_a_file_that_is_right_is_read(tmp_path: Path) -> None:
    file = tmp_path / "home.json"
    file.write_text(json.dumps(GOOD), encoding="utf-8")
    assert load_instance(file) == parse_instance(GOOD)
