"""The same tiny checkpoints whole: loaded by transformers itself into one process, run by its own forward passes.

Nothing of agents/checkpoints is used, so that a mistake made there is not made here too.
"""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import soundfile
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import transformers as t
from PIL import Image
from safetensors.torch import load_file

_RATE = 16_000
LONGEST = 12


@cache
def network(folder: Path) -> Any:
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(t, name).from_pretrained(folder).eval()


def pixels(folder: Path, data: bytes) -> Any:
    kind = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    processor = getattr(t, f"{kind}Pil").from_pretrained(folder)
    return processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt").pixel_values


def tokens(folder: Path, texts: list[str], **how: Any) -> Any:
    return t.AutoTokenizer.from_pretrained(folder)(texts, return_tensors="pt", **how)


def said(folder: Path, ids: Any) -> str:
    text: str = t.AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True)
    return text.strip()


def sound(folder: Path, data: bytes) -> Any:
    kind = json.loads((folder / "preprocessor_config.json").read_text())["feature_extractor_type"]
    extractor = getattr(t, kind).from_pretrained(folder)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == _RATE
    return extractor(samples[: getattr(extractor, "nb_max_samples", None)], sampling_rate=rate, return_tensors="pt")


def clip(folder: Path, image: bytes, text: list[str]) -> dict[str, Any]:
    """The padded batch of texts of a whole CLIP: the split runs each at its true length."""
    result = network(folder)(pixel_values=pixels(folder, image), **tokens(folder, text, padding=True))
    return _ranked(text, result.logits_per_image[0].softmax(-1))


def siglip(folder: Path, image: bytes, text: list[str]) -> dict[str, Any]:
    ids = tokens(folder, text, padding="max_length")["input_ids"]
    result = network(folder)(pixel_values=pixels(folder, image), input_ids=ids)
    return _ranked(text, result.logits_per_image[0].sigmoid())


def clap(folder: Path, audio: bytes, text: list[str]) -> dict[str, Any]:
    result = network(folder)(**sound(folder, audio), **tokens(folder, text, padding=True))
    return _ranked(text, result.logits_per_audio[0].softmax(-1))


def encoder_decoder(folder: Path, image: bytes) -> dict[str, Any]:
    ids = network(folder).generate(pixels(folder, image), max_new_tokens=LONGEST, do_sample=False, num_beams=1)
    return {"text": said(folder, ids[0])}


def blip(folder: Path, image: bytes, text: str | None = None) -> dict[str, Any]:
    question = {} if text is None else tokens(folder, [text])
    given = {name: question[name] for name in ("input_ids", "attention_mask") if name in question}
    ids = network(folder).generate(
        pixel_values=pixels(folder, image), **given, max_new_tokens=LONGEST, do_sample=False, num_beams=1
    )
    return {"text": said(folder, ids[0])}


def llava(folder: Path, image: bytes, text: str) -> dict[str, Any]:
    picture = pixels(folder, image)
    config = network(folder).config.vision_config
    count = (config.image_size // config.patch_size) ** 2
    prompt = tokens(folder, [f"USER: {'<image> ' * count}\n{text} ASSISTANT:"])["input_ids"]
    ids = network(folder).generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), pixel_values=picture, max_new_tokens=LONGEST,
        do_sample=False,
    )  # fmt: skip
    return {"text": said(folder, ids[0, prompt.shape[1] :])}


def whisper(folder: Path, audio: bytes) -> dict[str, Any]:
    ids = network(folder).generate(
        sound(folder, audio).input_features, max_new_tokens=LONGEST, do_sample=False, num_beams=1
    )
    return {"text": said(folder, ids[0])}


def image_classifier(folder: Path, image: bytes) -> dict[str, Any]:
    found = network(folder)
    scores = found(pixel_values=pixels(folder, image)).logits[0].softmax(-1)
    return _ranked([found.config.id2label[i] for i in range(len(scores))], scores)


def text_classifier(folder: Path, text: str) -> dict[str, Any]:
    found = network(folder)
    scores = found(input_ids=tokens(folder, [text])["input_ids"]).logits[0].softmax(-1)
    return _ranked([found.config.id2label[i] for i in range(len(scores))], scores)


def encoder_vqa(folder: Path, image: bytes, text: str) -> dict[str, Any]:
    """CLIP's two embeddings, joined, through the head beside it."""
    towers = network(folder)
    vision = towers.get_image_features(pixel_values=pixels(folder, image)).pooler_output
    words = towers.get_text_features(**tokens(folder, [text])).pooler_output
    head = load_file(folder.parent / "tiny-fusion" / "model.safetensors")
    x = F.relu(F.linear(torch.cat([vision, words], -1), head["classifier.0.weight"], head["classifier.0.bias"]))
    scores = F.linear(x, head["classifier.1.weight"], head["classifier.1.bias"])[0].softmax(-1)
    return _ranked(["yes", "no", "two"], scores)


def _ranked(labels: list[str], scores: torch.Tensor) -> dict[str, Any]:
    order = scores.argsort(descending=True).tolist()
    ranking = [{"label": labels[i], "score": scores[i].item()} for i in order]
    return {**ranking[0], "ranking": ranking}
