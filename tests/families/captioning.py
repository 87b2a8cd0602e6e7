"""Encoder-decoders that write what a picture shows: BLIP, ViT-GPT2, TrOCR and Donut, as their cards use them."""

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import transformers as t
from PIL import Image

from tests.checkpoints.tiny import BOS, EOS, PAD, SIZE, blip_config, pictures, tokenizer
from tests.families.family import LONGEST, Family
from tests.families.vision_language_makers import randomise
from tests.zoo.samples import sample

__all__ = ["CAPTIONING"]

CAT, ROCKET = sample("chelsea.jpg"), sample("rocket.jpg")
#: Words of the tiny vocabulary, in the place of `<s_cord-v2>`.
TASK_PROMPT = "photo of"
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def _write(folder: Path, encoder: Any, decoder: Any, images: str, deviation: float = 0.3, seed: int = 3) -> None:
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, PAD, EOS
    network = t.VisionEncoderDecoderModel(config)
    network.generation_config = t.GenerationConfig(decoder_start_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    _save(network, folder, images, deviation, seed)


def _save(network: Any, folder: Path, images: str, deviation: float, seed: int) -> None:
    randomise(network, deviation, seed)
    network.eval().save_pretrained(folder)
    tokenizer(folder)
    pictures(folder, images)


def _trocr(folder: Path) -> None:
    words = t.TrOCRConfig(
        d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, vocab_size=SIZE,
        cross_attention_hidden_size=32, max_position_embeddings=64, pad_token_id=PAD, bos_token_id=BOS,
        eos_token_id=EOS,
    )  # fmt: skip
    _write(folder, t.ViTConfig(**_VIT), words, "ViTImageProcessorPil", 0.2, 3)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "TrOCRProcessor"}))


def _donut(folder: Path) -> None:
    words = t.MBartConfig(
        d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, vocab_size=SIZE, is_decoder=True,
        add_cross_attention=True, max_position_embeddings=64, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        add_final_layer_norm=True,
    )  # fmt: skip
    swin = t.DonutSwinConfig(
        image_size=[32, 32], patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    _write(folder, swin, words, "DonutImageProcessorPil")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "DonutProcessor"}))


@cache
def _loaded(folder: Path) -> tuple[Any, Any, Any]:
    kind = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    network = t.VisionEncoderDecoderModel.from_pretrained(folder).eval()
    return network, getattr(t, f"{kind}Pil").from_pretrained(folder), t.AutoTokenizer.from_pretrained(folder)


def _read(prompt: str) -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    def whole(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
        network, images, texts = _loaded(folder)
        pixels = images(Image.open(io.BytesIO(inputs["image"])).convert("RGB"), return_tensors="pt").pixel_values
        begins = {}
        if prompt:
            begins["decoder_input_ids"] = texts(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        ids = network.generate(pixels, **begins, max_new_tokens=LONGEST, do_sample=False)[0]
        new = ids[begins["decoder_input_ids"].shape[1] if prompt else 1 :].tolist()
        text = texts.decode(new, skip_special_tokens=True).strip()
        return {"text": text, "finished": "stop" if EOS in new else "length"}

    return whole


def _vit_gpt2(folder: Path) -> None:
    words = t.GPT2Config(
        n_embd=48, n_layer=2, n_head=4, vocab_size=SIZE, bos_token_id=BOS, eos_token_id=EOS, add_cross_attention=True,
        is_decoder=True,
    )  # fmt: skip
    _write(folder, t.ViTConfig(**_VIT), words, "ViTImageProcessorPil", 0.2, 7)


def _blip_captioning(folder: Path) -> None:
    _save(t.BlipForConditionalGeneration(blip_config()), folder, "BlipImageProcessorPil", 0.2, 8)


def _blip(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    network = t.BlipForConditionalGeneration.from_pretrained(folder).eval()
    images, texts = t.BlipImageProcessorPil.from_pretrained(folder), t.AutoTokenizer.from_pretrained(folder)
    pixels = images(Image.open(io.BytesIO(inputs["image"])).convert("RGB"), return_tensors="pt").pixel_values
    new = network.generate(pixels, max_new_tokens=LONGEST, do_sample=False)[0].tolist()[1:]
    text = texts.decode(new, skip_special_tokens=True).strip()
    return {"text": text, "finished": "stop" if EOS in new else "length"}


_ASKS: list[dict[str, Any]] = [{"image": CAT}, {"image": ROCKET}]
CAPTIONING = [
    Family("blip", "vision-language", _blip_captioning, _ASKS, _blip),
    Family("vit-gpt2", "vision-language", _vit_gpt2, _ASKS, _read("")),
    Family("trocr", "vision-language", _trocr, _ASKS, _read("")),
    Family("donut", "vision-language", _donut, _ASKS, _read(TASK_PROMPT), options=[f"prompt={TASK_PROMPT}"]),
]
