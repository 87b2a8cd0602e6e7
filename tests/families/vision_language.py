"""Vision-language models: a question about one or several pictures, answered by `generate` of the whole model."""

import io
import json
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import transformers as t
from PIL import Image

from tests.families.family import LONGEST, Family
from tests.families.vision_language_checkpoints import CHECKPOINTS, LFM2_VL
from tests.families.vision_language_makers import VisionLanguage
from tests.families.with_torchvision import ANSWERS, ASKED, written
from tests.zoo.samples import sample

__all__ = ["VISION_LANGUAGE"]

CAT, ROCKET = sample("chelsea.jpg"), sample("rocket.jpg")


class _NoVideos(dict[str, Any]):
    """In the place of the video half; SmolVLM's processor asks it for two defaults."""

    num_frames = fps = None


def _processor_class(name: str) -> Any:
    """The processor's class; PixtralProcessor is hidden without torchvision, which it imports for one function."""
    if name == "SmolVLMProcessor":  # it wants num2words, for videos
        home: Any = import_module("transformers.models.smolvlm.processing_smolvlm")
        home.num2words = home.num2words or str
    if name != "PixtralProcessor":
        return getattr(t, name)
    with pytest.MonkeyPatch.context() as patch:
        home = "transformers.models.pixtral"
        pillow = import_module(f"{home}.image_processing_pil_pixtral")
        patch.setitem(sys.modules, f"{home}.image_processing_pixtral", pillow)
        return import_module(f"{home}.processing_pixtral").PixtralProcessor


@cache
def _processor(folder: Path) -> Any:
    """The folder's processor, built as AutoProcessor would: its video half wants torchvision, which is not there."""
    settings = json.loads((folder / "processor_config.json").read_text())
    base = _processor_class(settings["processor_class"])
    kind: Any = type(base.__name__, (base,), {"check_argument_for_proper_class": lambda *_: None})
    images = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    halves = {
        "image_processor": getattr(t, f"{images}Pil").from_pretrained(folder),
        "tokenizer": t.AutoTokenizer.from_pretrained(folder),
    }
    if (folder / "qformer_tokenizer").is_dir():
        halves["qformer_tokenizer"] = t.AutoTokenizer.from_pretrained(folder / "qformer_tokenizer")
    given, _ = kind.get_processor_dict(folder)
    return kind.from_args_and_dict([halves.get(name, _NoVideos()) for name in kind.get_attributes()], given)


@cache
def _network(folder: Path) -> Any:
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(t, name).from_pretrained(folder).eval()


def _opened(inputs: dict[str, Any]) -> list[Image.Image]:
    found = inputs["image"]
    files = found if isinstance(found, list) else [found]
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in files]


def _chat(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """As the model cards say: the chat template with pictures, `generate`, and what is new of it decoded."""
    content = [{"type": "image", "image": picture} for picture in _opened(inputs)]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": inputs["text"]}]}]
    prepared = _processor(folder).apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return _said(folder, prepared)


def _plain(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    return _said(folder, _processor(folder)(images=_opened(inputs)[0], text=inputs["text"], return_tensors="pt"))


def _reading(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    return _said(folder, _processor(folder)(_opened(inputs)[0], return_tensors="pt"))


def _said(folder: Path, prepared: Any) -> dict[str, Any]:
    ids = _network(folder).generate(**prepared, max_new_tokens=LONGEST, do_sample=False)
    crosses = _network(folder).config.is_encoder_decoder
    new = ids[0][1 if crosses else prepared["input_ids"].shape[1] :].tolist()
    text = _processor(folder).tokenizer.decode(new, skip_special_tokens=True).strip()
    return {"text": text, "finished": "stop" if 2 in new else "length"}


_ASKED: list[dict[str, Any]] = [{"image": CAT, "text": "what is this"}, {"image": ROCKET, "text": "who sits there"}]
_TWO: dict[str, Any] = {"image": [CAT, ROCKET], "text": "what is this"}
#: Families that are asked about one picture.
_ONE = ("llava", "llava-siglip")


def _row(name: str, checkpoint: VisionLanguage) -> Family:
    if checkpoint.template:
        asks: list[dict[str, Any]] = _ASKED if name in _ONE else [*_ASKED, _TWO]
        return Family(name, "vision-language", checkpoint.write, asks, _chat)
    if name == "got-ocr2":
        return Family(name, "vision-language", checkpoint.write, [{"image": CAT}, {"image": ROCKET}], _reading)
    return Family(name, "vision-language", checkpoint.write, _ASKED, _plain)


def _lfm2_vl(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads((written(folder) / ANSWERS).read_text())
    return found[ASKED.index(inputs)]


VISION_LANGUAGE = [_row(name, checkpoint) for name, checkpoint in CHECKPOINTS.items()]
VISION_LANGUAGE.append(Family("lfm2-vl", "vision-language", LFM2_VL.write, ASKED, _lfm2_vl))
