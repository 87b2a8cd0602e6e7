"""Image processors that transformers has for torchvision alone make the same numbers without it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s2m3.agents.checkpoints.storage.torchvision_functions import class_over_torch
from s2m3.schemas.checkpoints.processors import NO_PILLOW, OVER_TORCH
from tests.families.conftest import checkpoint
from tests.families.vision_language import VISION_LANGUAGE
from tests.families.with_torchvision import PIXELS, pixels_of, written

LFM2_VL = next(family for family in VISION_LANGUAGE if family.name == "lfm2-vl")


@pytest.mark.long  # half a minute: torchvision is installed beside, and 28 processors run over three pictures
def test_a_processor_over_torch_makes_the_pixels_that_it_makes_with_torchvision(folder: Path) -> None:
    expected = load_file(written(checkpoint(folder, LFM2_VL)) / PIXELS)
    assert {name.split(".")[0] for name in expected} == OVER_TORCH
    for name in sorted(OVER_TORCH):
        found = pixels_of(class_over_torch(name)())
        own = {key.removeprefix(f"{name}."): value for key, value in expected.items() if key.startswith(f"{name}.")}
        assert found.keys() == own.keys(), name
        different = [key for key in own if not torch.equal(found[key], own[key])]
        assert not different, f"{name}: {different}"


def test_they_are_among_those_without_a_processor_of_pillow() -> None:
    assert OVER_TORCH < NO_PILLOW
