"""The rows of dual encoders: which text fits a picture or a sound."""

import io
import json
import string
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers as t
from PIL import Image

from tests.families.family import Family
from tests.families.speech import randomised, samples, sound
from tests.zoo.samples import sample

__all__ = ["DUAL", "PICTURES", "bert_words", "clip_words", "gemma_words", "ranked", "scaled", "xlm_words"]

_LETTERS = string.ascii_lowercase
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_VISION = {**_TOWER, "image_size": 32, "patch_size": 8}
_SQUARE = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}
_TEXTS = ["a photo of a cat", "Two DOGS", "the moon over a very wide and quiet lake", "x"]
_LONG = "a picture of " + "many " * 40 + "things"
PICTURES = [
    {"image": sample("chelsea.jpg"), "text": _TEXTS},
    {"image": sample("rocket.jpg"), "text": [*_TEXTS[1:], _LONG]},
]


def clip_words(folder: Path, longest: int) -> tuple[int, int, int]:
    """CLIP's byte pairs, without merges; returns the size of the vocabulary and the ids of begin and end."""
    words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    t.CLIPTokenizer({word: n for n, word in enumerate(words)}, [], model_max_length=longest).save_pretrained(folder)
    return len(words), len(words) - 2, len(words) - 1


def bert_words(folder: Path, longest: int, **how: Any) -> int:
    """BERT's word pieces; returns the size of the vocabulary."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*marks, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), "photo", "cat", "moon", "##s"]
    t.BertTokenizer({word: n for n, word in enumerate(words)}, model_max_length=longest, **how).save_pretrained(folder)
    return len(words)


def xlm_words(folder: Path, longest: int) -> int:
    """XLM-RoBERTa's pieces; returns the size of the vocabulary, whose first four are begin, padding, end, unknown."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*marks, "▁", *_LETTERS, *string.ascii_uppercase, "▁a", "▁photo", "<mask>"]
    vocabulary = [(piece, -0.1 * n) for n, piece in enumerate(pieces)]
    t.XLMRobertaTokenizer(vocabulary, model_max_length=longest).save_pretrained(folder)
    return len(pieces)


def gemma_words(folder: Path, kind: str = "GemmaTokenizer", **how: Any) -> int:
    """Gemma's byte pairs, without merges; returns the size of the vocabulary: padding, end, begin, unknown, …"""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_LETTERS, *string.ascii_uppercase]
    getattr(t, kind)({word: n for n, word in enumerate(words)}, [], **how).save_pretrained(folder)
    return len(words)


def _siglip_words(folder: Path) -> int:
    """SigLIP's sentencepiece model, of a few words."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*_TEXTS, _LETTERS, " ".join(_LETTERS)]), model_writer=made, vocab_size=40,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    file = folder / "spiece.model"
    file.write_bytes(made.getvalue())
    found = t.SiglipTokenizer(str(file), model_max_length=64, model_input_names=["input_ids"])
    found.save_pretrained(folder)
    return int(found.vocab_size)


def _pictures(folder: Path, kind: str = "CLIPImageProcessorPil", **how: Any) -> None:
    getattr(t, kind)(**(how or _SQUARE)).save_pretrained(folder)


def scaled(network: Any, folder: Path) -> None:
    """Saves a network with random weights; its scale spreads the scores as far as a trained one's."""
    randomised(network, folder)
    with torch.no_grad():
        for name, scale in network.named_parameters(recurse=False):
            scale.fill_(-1.0 if name == "logit_bias" else 2.3)
    network.save_pretrained(folder)


def _text(words: int, **how: Any) -> dict[str, Any]:
    return {**_TOWER, "vocab_size": words, "max_position_embeddings": 40, **how}


def _make_clip(folder: Path) -> None:
    words, begin, end = clip_words(folder, 40)
    text = _text(words, bos_token_id=begin, eos_token_id=end, pad_token_id=end)
    scaled(t.CLIPModel(t.CLIPConfig(vision_config=_VISION, text_config=text, projection_dim=16)), folder)
    _pictures(folder)


def _make_metaclip(folder: Path) -> None:
    text = _text(xlm_words(folder, 40), bos_token_id=0, eos_token_id=2, pad_token_id=1)
    config = t.MetaClip2Config(vision_config=_VISION, text_config=text, projection_dim=16)
    scaled(t.MetaClip2Model(config), folder)
    _pictures(folder)


def _make_chinese_clip(folder: Path) -> None:
    config = t.ChineseCLIPConfig(vision_config=_VISION, text_config=_text(bert_words(folder, 40)), projection_dim=16)
    scaled(t.ChineseCLIPModel(config), folder)
    _pictures(folder, "ChineseCLIPImageProcessorPil")


def _make_altclip(folder: Path) -> None:
    text = _text(xlm_words(folder, 38), pad_token_id=1, project_dim=24)
    scaled(t.AltCLIPModel(t.AltCLIPConfig(vision_config=_VISION, text_config=text, projection_dim=16)), folder)
    _pictures(folder)


def _make_vision_text(folder: Path) -> None:
    """Towers of two other families, joined by LiT's way of training: a ViT and a BERT."""
    text = t.BertConfig(**_text(bert_words(folder, 40)))
    config = t.VisionTextDualEncoderConfig.from_vision_text_configs(t.ViTConfig(**_VISION), text, projection_dim=16)
    scaled(t.VisionTextDualEncoderModel(config), folder)
    _pictures(folder, "ViTImageProcessorPil", size=_SQUARE["size"])


def _make_siglip(folder: Path) -> None:
    text = _text(_siglip_words(folder), max_position_embeddings=64, projection_size=32)
    scaled(t.SiglipModel(t.SiglipConfig(vision_config=_VISION, text_config=text)), folder)
    _pictures(folder, "SiglipImageProcessorPil", size=_SQUARE["size"])


def _make_siglip2(folder: Path) -> None:
    """SigLIP 2 of one size of pictures is published as SigLIP with another tokenizer."""
    words = gemma_words(folder, "Siglip2Tokenizer", model_input_names=["input_ids"], padding_side="right")
    text = _text(words, max_position_embeddings=64, projection_size=32)
    scaled(t.SiglipModel(t.SiglipConfig(vision_config=_VISION, text_config=text)), folder)
    _pictures(folder, "SiglipImageProcessorPil", size=_SQUARE["size"])


def _make_naflex(folder: Path) -> None:
    words = gemma_words(folder, "Siglip2Tokenizer", model_input_names=["input_ids"], padding_side="right")
    text = _text(words, max_position_embeddings=64, projection_size=32)
    config = t.Siglip2Config(vision_config={**_TOWER, "num_patches": 36, "patch_size": 8}, text_config=text)
    scaled(t.Siglip2Model(config), folder)
    _pictures(folder, "Siglip2ImageProcessorPil", patch_size=8, max_num_patches=24)


def _make_clap(folder: Path) -> None:
    sounds = {"hidden_size": 64, "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 32}
    spectrum = {"num_mel_bins": 16, "spec_size": 32, "window_size": 4, "num_classes": 3}
    text = _text(xlm_words(folder, 30), pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1)
    config = t.ClapConfig(audio_config={**sounds, **spectrum}, text_config=text, projection_dim=16)
    scaled(t.ClapModel(config), folder)
    t.ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, max_length_s=1, fft_window_size=512, hop_length=320, frequency_max=8000,
        truncation="rand_trunc", padding="repeatpad",
    ).save_pretrained(folder)  # fmt: skip


@cache
def _whole(folder: Path) -> Any:
    return t.AutoModel.from_pretrained(folder).eval()


def ranked(labels: list[str], scores: torch.Tensor) -> dict[str, Any]:
    """Returns `label`, `score` and `ranking` of scores, one per label."""
    order = scores.argsort(descending=True, stable=True).tolist()
    ranking = [{"label": labels[i], "score": scores[i].item()} for i in order]
    return {**ranking[0], "ranking": ranking}


def _words(folder: Path, texts: list[str], **how: Any) -> Any:
    return t.AutoTokenizer.from_pretrained(folder)(texts, truncation=True, return_tensors="pt", **how)


def _pixels(folder: Path, data: bytes) -> Any:
    kind = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    processor = getattr(t, f"{kind}Pil").from_pretrained(folder)
    return processor(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")


def _softmax(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    given = {**_words(folder, inputs["text"], padding=True), **_pixels(folder, inputs["image"])}
    return ranked(inputs["text"], _whole(folder)(**given).logits_per_image.softmax(dim=1)[0])


def _sigmoid(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    words = _words(folder, inputs["text"], padding="max_length", max_length=64)
    found = _whole(folder)(**words, **_pixels(folder, inputs["image"]))
    return ranked(inputs["text"], torch.sigmoid(found.logits_per_image)[0])


def _heard(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    extractor = t.ClapFeatureExtractor.from_pretrained(folder)
    features = extractor(samples(inputs["audio"]), sampling_rate=16_000, return_tensors="pt")
    found = _whole(folder)(**_words(folder, inputs["text"], padding=True), **features)
    return ranked(inputs["text"], found.logits_per_audio.softmax(dim=-1)[0])


_SOUNDS = [{"audio": sound(1), "text": _TEXTS}, {"audio": sound(2, 0.6), "text": [*_TEXTS[1:], _LONG]}]
DUAL = [
    Family("clip", "dual", _make_clip, PICTURES, _softmax),
    Family("metaclip-2", "dual", _make_metaclip, PICTURES, _softmax),
    Family("chinese-clip", "dual", _make_chinese_clip, PICTURES, _softmax),
    Family("altclip", "dual", _make_altclip, PICTURES, _softmax),
    Family("vision-text-dual-encoder", "dual", _make_vision_text, PICTURES, _softmax),
    Family("siglip", "dual", _make_siglip, PICTURES, _sigmoid),
    Family("siglip2", "dual", _make_siglip2, PICTURES, _sigmoid),
    Family("siglip2-naflex", "dual", _make_naflex, PICTURES, _sigmoid),
    Family("clap", "dual", _make_clap, _SOUNDS, _heard),
]
