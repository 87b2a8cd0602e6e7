"""`s2m3 plan` with stand-ins: which model answers, which are warm, and what answers when a device is off."""

import json
from pathlib import Path
from typing import Any

import pytest

from s2m3.planner.solving.ranked_instance import plan_ranks
from s2m3.planner.solving.solve import solve
from s2m3.schemas.errors import BadDefinitionError, NoCapacityError
from s2m3.schemas.instance import parse_instance
from tests.command import s2m3

EVERYWHERE = {"desktop": 0.1, "laptop": 0.5, "pi": 2.0}
HOME: dict[str, Any] = {
    "devices": [
        {"id": "desktop", "memory_mb": 9000.0},
        {"id": "laptop", "memory_mb": 1200.0},
        {"id": "pi", "memory_mb": 300.0},
    ],
    "modules": [
        {"id": "gemma", "memory_mb": 8000.0, "seconds": {"desktop": 1.0}},
        {"id": "blip", "memory_mb": 1000.0, "seconds": EVERYWHERE},
        {"id": "tiny", "memory_mb": 100.0, "seconds": EVERYWHERE},
        {"id": "words", "memory_mb": 150.0, "seconds": EVERYWHERE},
    ],
    "tasks": [
        {
            "id": "porch",
            "steps": [{"id": "answer", "module": "gemma"}],
            "stand_ins": [
                {"id": "blip-vqa", "steps": [{"id": "answer", "module": "blip"}]},
                {"id": "classification", "steps": [{"id": "look", "module": "tiny"}]},
            ],
        },
        {"id": "words", "steps": [{"id": "hear", "module": "words"}]},
    ],
}


def test_the_best_models_are_placed_and_what_answers_each_loss_is_told() -> None:
    found = plan_ranks(parse_instance(HOME), solve)
    assert (found.ranks, found.left_out) == ({"porch": 0, "words": 0}, {})
    assert found.warm.ranks == {"porch": [1, 2]}
    assert found.warm.copies == {"blip": ["laptop"], "tiny": ["pi"]}
    assert {device: ranks["porch"] for device, ranks in found.after_loss.items()} == {
        "desktop": 1,
        "laptop": 0,
        "pi": 0,
    }
    assert found.after_loss["desktop"]["words"] is None  # it is a task of one model, and its module has one copy


def test_what_no_task_can_have_is_left_out_and_says_why() -> None:
    small = {**HOME, "devices": [{"id": "pi", "memory_mb": 200.0}]}
    small["modules"] = [{**module, "seconds": {"pi": 1.0}} for module in HOME["modules"]]
    found = plan_ranks(parse_instance(small), solve)
    assert (found.ranks, set(found.left_out)) == ({"words": 0}, {"porch"})
    with pytest.raises(NoCapacityError):
        plan_ranks(parse_instance({**small, "devices": [{"id": "pi", "memory_mb": 50.0}]}), solve)


def test_the_command_says_what_answers_without_a_device(tmp_path: Path) -> None:
    file = tmp_path / "home.json"
    file.write_text(json.dumps(HOME))
    found = json.loads(s2m3("plan", str(file), "--without", "desktop", "--json", check=True).stdout)
    assert (found["ranks"], found["unanswered"]) == ({"porch": 1, "words": 0}, {})
    assert found["stand_ins"]["ranks"] == {"porch": [2]}
    shown = s2m3("plan", str(file), check=True).stdout
    assert "without desktop" in shown


def test_a_wrong_stand_in_is_named() -> None:
    wrong = json.loads(json.dumps(HOME))
    wrong["tasks"][0]["stand_ins"][1]["steps"][0]["module"] = "tinny"
    with pytest.raises(BadDefinitionError, match=r"porch.stand_ins.classification.steps.look.module: unknown"):
        parse_instance(wrong)
