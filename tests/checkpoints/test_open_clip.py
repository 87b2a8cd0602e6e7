"""open_clip's format: pictures become what its own transform makes of them; both layouts of its text tower."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.checkpoints.inprocess import loaded, run_all
from tests.families.dual import PICTURES
from tests.families.family import definition
from tests.families.open_clip import OPEN_CLIP
from tests.zoo.samples import sample

(ROW,) = OPEN_CLIP
CAT = sample("chelsea.jpg")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "vit"
    folder.mkdir()
    ROW.make(folder)
    return folder


@pytest.mark.parametrize("way", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_a_picture_may_be_squashed_to_a_square(made: Path, way: Image.Resampling) -> None:
    file = made / "open_clip_config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    config["preprocess_cfg"] |= {"resize_mode": "squash", "interpolation": way.name.lower()}
    file.write_text(json.dumps(config))
    module: Any = loaded(made.parent, definition(made).modules[0])
    found = module.prepare({"image": CAT})["pixel_values"]
    squashed = np.asarray(Image.open(io.BytesIO(CAT)).convert("RGB").resize((32, 32), way), np.float32) / 255
    mean, std = (np.array(config["preprocess_cfg"][name], np.float32) for name in ("mean", "std"))
    np.testing.assert_allclose(found[0].numpy(), ((squashed - mean) / std).transpose(2, 0, 1), atol=1e-5)


def test_a_text_tower_under_a_name_of_its_own_is_the_same(made: Path) -> None:
    file = made / "open_clip_model.safetensors"
    before = run_all(made.parent, definition(made), PICTURES[0])["match.ranking"]
    whole = ("visual.", "logit_scale")
    tensors = {name if name.startswith(whole) else f"text.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file)
    with torch.inference_mode():
        assert run_all(made.parent, definition(made), PICTURES[0])["match.ranking"] == before
