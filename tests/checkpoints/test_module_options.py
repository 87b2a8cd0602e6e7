"""`task add --option`: for the one part, or the one that writes; Donut is not added without its task prompt."""

import json
from pathlib import Path

import pytest

from s2m3.commands.module_options import check_task_prompt, with_options
from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas.definitions import Definition
from s2m3.schemas.errors import BadInputError, UnsupportedCheckpointError


def definition(folder: Path) -> Definition:
    found = checkpoint_definition(str(folder), folder.name)
    assert found is not None
    return found


def test_an_option_goes_to_the_part_that_writes_and_makes_another_module_of_it(tiny: Path) -> None:
    plain = definition(tiny / "tiny-vit-gpt2")
    found = with_options(plain, ["prompt=a photo", "max_new_tokens=5"])
    assert found is not None
    (vision, decoder), (same, before) = found.modules, plain.modules
    assert vision == same
    assert decoder.config == {"prompt": "a photo", "max_new_tokens": 5}
    assert decoder.id != before.id
    assert found.model.steps["words"].module == decoder.id
    assert found.model.steps["image"].module == vision.id


def test_options_of_several_parts_of_which_none_writes_are_refused(tiny: Path) -> None:
    with pytest.raises(BadInputError, match="the part that writes a text"):
        with_options(definition(tiny / "tiny-clip"), ["prompt=a"])


def test_an_option_without_a_value_is_refused(tiny: Path) -> None:
    with pytest.raises(BadInputError, match="takes NAME=VALUE, not 'prompt'"):
        with_options(definition(tiny / "tiny-vit-gpt2"), ["prompt"])


def test_donut_wants_the_prompt_of_a_task(tiny: Path, tmp_path: Path) -> None:
    plain = definition(tiny / "tiny-vit-gpt2")
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "DonutProcessor"}))
    with pytest.raises(
        UnsupportedCheckpointError, match="begins each text with the prompt of a task: --option prompt="
    ):
        check_task_prompt(tmp_path, plain)
    given = with_options(plain, ["prompt=<s_cord-v2>"])
    assert given is not None
    check_task_prompt(tmp_path, given)
    check_task_prompt(tiny / "tiny-vit-gpt2", plain)
