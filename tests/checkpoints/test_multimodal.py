"""What a language model's node is sent of pictures is checked: numbers that no picture has are `bad_input`."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s2m3.agents.serving.module import Module
from s2m3.schemas.errors import BadInputError
from tests.checkpoints.inprocess import loaded, run_all, run_module
from tests.families.family import definition
from tests.families.vision_language import VISION_LANGUAGE
from tests.families.vision_language_checkpoints import CHECKPOINTS
from tests.zoo.samples import sample

CAT, ROCKET = sample("chelsea.jpg"), sample("rocket.jpg")
ROWS = {family.name: family for family in VISION_LANGUAGE}


def picture(mode: str, size: tuple[int, int], form: str) -> bytes:
    """A picture of noise: of four inks, of 16 bits, of a palette, tall or wide."""
    shape = (size[1], size[0]) if mode in ("I;16", "P") else (size[1], size[0], {"CMYK": 4, "RGBA": 4}[mode])
    noise = np.random.default_rng(size[0]).integers(0, 65_536 if mode == "I;16" else 256, shape)
    file = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(noise.astype(np.uint16)).save(file, form)
    elif mode == "P":
        Image.fromarray(noise.astype(np.uint8)).convert("P").save(file, form)
    else:
        Image.frombytes(mode, size, noise.astype(np.uint8).tobytes()).save(file, form)
    return file.getvalue()


EIGHT = [
    CAT,
    ROCKET,
    picture("CMYK", (90, 40), "JPEG"),
    picture("I;16", (33, 120), "PNG"),
    picture("P", (64, 64), "GIF"),
    picture("RGBA", (200, 31), "PNG"),
    CAT,
    ROCKET,
]


@pytest.mark.parametrize("name", ["smolvlm", "qwen2-5-vl", "internvl", "mistral3"])
@pytest.mark.parametrize("count", [1, 8])
def test_pictures_of_any_kind_are_read_as_transformers_reads_them(tmp_path: Path, name: str, count: int) -> None:
    folder = tmp_path / name
    folder.mkdir()
    ROWS[name].make(folder)
    inputs = {"image": EIGHT if count == 8 else EIGHT[3:4], "text": "what is this"}
    with torch.inference_mode():
        wanted = ROWS[name].whole(folder, inputs)
    found = run_all(tmp_path, definition(folder), inputs)
    assert {output: found[f"words.{output}"] for output in wanted} == wanted


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Module, Module]:
    """The picture half and the language model of a tiny LLaVA-NeXT."""
    folder = tmp_path_factory.mktemp("multimodal") / "llava-next"
    folder.mkdir()
    CHECKPOINTS["llava-next"].write(folder)
    vision, words = (loaded(folder.parent, spec) for spec in definition(folder).modules)
    return vision, words


def features(vision: Module, *pictures: bytes) -> dict[str, Any]:
    found: dict[str, Any] = run_module(vision, {"image": list(pictures)}, "features")["features"]
    return found


def test_pixels_do_not_travel(modules: tuple[Module, Module]) -> None:
    found = features(modules[0], CAT)
    assert found["sizes"]["pixel_values"].keys() == {"shape"}
    assert found["pictures"] == 1


def test_nine_pictures_are_too_many(modules: tuple[Module, Module]) -> None:
    with pytest.raises(BadInputError, match="9 pictures; at most 8"):
        modules[0].prepare({"image": [CAT] * 9})


@pytest.mark.parametrize("pictures", [0, 9, -1, 10**9, 1.5, "1", None])
def test_a_number_of_pictures_that_nobody_sends_is_refused(modules: tuple[Module, Module], pictures: Any) -> None:
    vision, words = modules
    with pytest.raises(BadInputError, match="1 to 8 pictures"):
        words.prepare({"features": {**features(vision, CAT), "pictures": pictures}, "text": "what"})


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"pixel_values": {"shape": [1, 5, 3, 10**9, 10**9]}},
        {"pixel_values": {"shape": [-5]}},
        {"pixel_values": {"shape": ["a"]}},
        {"image_sizes": np.full((1, 2), 10**9)},
        {"image_sizes": np.zeros((5_000, 2), np.int64)},
        {"image_sizes": [[10**12, 5]]},
        {"image_sizes": None},
    ],
)
def test_sizes_that_no_picture_has_are_refused(modules: tuple[Module, Module], sizes: dict[str, Any]) -> None:
    vision, words = modules
    given = features(vision, CAT)
    changed = {**given, "sizes": {**given["sizes"], **sizes} if sizes else {}}
    with pytest.raises(BadInputError, match="the prompt cannot be made"):
        words.prepare({"features": changed, "text": "what"})


@pytest.mark.parametrize("field", [[np.full((4, 32), np.nan, np.float32)], "a", [b"a"], {"a": 1}])
def test_features_that_are_no_numbers_are_refused(modules: tuple[Module, Module], field: Any) -> None:
    vision, words = modules
    with pytest.raises(BadInputError, match="input 'features' holds"):
        words.prepare({"features": {**features(vision, CAT), "pooler_output": field}, "text": "what"})


def test_a_chat_has_to_show_the_pictures_that_came(modules: tuple[Module, Module]) -> None:
    vision, words = modules
    two = features(vision, CAT, ROCKET)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]}]
    with pytest.raises(BadInputError, match="the chat shows 1 pictures; 2 came with it"):
        words.prepare({"features": two, "text": chat})
