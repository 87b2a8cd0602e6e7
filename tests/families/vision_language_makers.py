"""Tiny checkpoints of vision-language models, with the real kinds of processor, tokenizer and chat template."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.checkpoints.tiny import WORDS

__all__ = [
    "LANGUAGE",
    "LLAMA",
    "SIGLIP",
    "SQUARE",
    "TOWER",
    "VisionLanguage",
    "blip_2",
    "gemma",
    "idefics",
    "llava",
    "qwen",
    "randomise",
    "template",
]

_FIRST = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
LLAMA = {**LANGUAGE, "model_type": "llama"}
SIGLIP = {**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False}
SQUARE = {"height": 32, "width": 32}


def template(picture: str, before: str = "", after: str = "\n") -> str:
    """A chat template in the published form: roles, pictures where they stand, the generation prompt."""
    return (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] }} : "
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}" + before + picture + after + "{% elif content['type'] == 'text' %}"
        "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )


@dataclass(frozen=True)
class VisionLanguage:
    """A tiny checkpoint's folder.

    Args:
        network: Class and configuration; `ids` are the special tokens' numbers.
        processor: Class of the processor, and its own settings.
        images: Class of the image processor (Pillow's, where it has one), and its settings.
        special: Special tokens, beside the four that all have; by the tokenizer's attribute where they have one.
        template: The chat template; empty if there is none.
    """

    network: Callable[[dict[str, int]], tuple[Any, Any]]
    processor: tuple[str, dict[str, Any]]
    images: tuple[str, dict[str, Any]]
    special: dict[str, str]
    template: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    deviation: float = 0.3

    def write(self, folder: Path) -> None:
        vocabulary = _FIRST + list(self.special.values()) + WORDS + [f"w{number}" for number in range(160)]
        words = {word: number for number, word in enumerate(list(dict.fromkeys(vocabulary))[:160])}
        made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - no password
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        names = {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
        made.add_special_tokens(list(self.special.values()))
        tokenizer = t.PreTrainedTokenizerFast(
            tokenizer_object=made,
            model_max_length=1024,
            extra_special_tokens={name: token for name, token in self.special.items() if name.endswith("_token")},
            **names,
        )
        tokenizer.save_pretrained(folder)
        if self.processor[0].startswith("InstructBlip"):
            tokenizer.save_pretrained(folder / "qformer_tokenizer")
        kind, settings = self.images
        if kind.endswith("Pil"):
            getattr(t, kind)(**settings).save_pretrained(folder)
        else:  # without torchvision there is no such class here
            (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **settings}))
        name, own = self.processor
        (folder / "processor_config.json").write_text(json.dumps({"processor_class": name, **own}))
        if self.template:
            (folder / "chat_template.jinja").write_text(self.template)
        cls, config = self.network(words)
        torch.manual_seed(11)
        network = cls(config).eval()
        randomise(network, self.deviation)
        network.generation_config = t.GenerationConfig(
            eos_token_id=2, pad_token_id=0, bos_token_id=1, **self.generation
        )
        network.save_pretrained(folder)


def randomise(network: Any, deviation: float, seed: int = 3) -> None:
    """Gives a network other numbers: matrices N(0, deviation), norms around 1, the rest N(0, 0.1)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, deviation, generator=generator)
            elif "norm" in name.lower() and "bias" not in name:
                weight.copy_(1 + 0.2 * torch.randn(weight.shape, generator=generator))
            else:
                weight.normal_(0, 0.1, generator=generator)


def idefics(name: str) -> VisionLanguage:
    config, kind = getattr(t, f"{name}Config"), getattr(t, f"{name}ForConditionalGeneration")
    tiles = {f"<row_{i + 1}_col_{j + 1}>": f"<row_{i + 1}_col_{j + 1}>" for i in range(2) for j in range(2)}
    return VisionLanguage(
        network=lambda ids: (
            kind,
            config(
                image_token_id=ids["<image>"],
                scale_factor=2,
                vision_config=dict(TOWER),
                text_config=LLAMA,
                pad_token_id=0,
            ),
        ),
        processor=(f"{name}Processor", {"image_seq_len": 4}),
        images=(
            f"{name}ImageProcessorPil",
            {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": True},
        ),
        special={
            "image": "<image>",
            "fake": "<fake_token_around_image>",
            "global": "<global-img>",
            "end": "<end_of_utterance>",
            **tiles,
        },
        template=template("<image>"),
    )


def qwen(version: str, tower: dict[str, Any], **text: Any) -> VisionLanguage:
    config, kind = getattr(t, f"{version}Config"), getattr(t, f"{version}ForConditionalGeneration")
    return VisionLanguage(
        network=lambda ids: (
            kind,
            config(
                image_token_id=ids["<|image_pad|>"],
                video_token_id=ids["<|video_pad|>"],
                vision_start_token_id=ids["<|vision_start|>"],
                vision_end_token_id=ids["<|vision_end|>"],
                vision_config={**_QWEN_TOWER, **tower},
                text_config={**LANGUAGE, **_ROPE, **text},
            ),
        ),
        processor=(f"{version}Processor", {}),
        images=(
            "Qwen2VLImageProcessorPil",
            {"patch_size": 8, "merge_size": 2, "size": {"shortest_edge": 256, "longest_edge": 1024}},
        ),
        special={
            "image": "<|image_pad|>",
            "video": "<|video_pad|>",
            "start": "<|vision_start|>",
            "end": "<|vision_end|>",
        },
        template=template("<|vision_start|><|image_pad|><|vision_end|>", after=""),
    )


def llava(
    kind: str,
    tower: dict[str, Any],
    text: dict[str, Any],
    images: tuple[str, dict[str, Any]],
    features: Mapping[str, Any] = MappingProxyType({}),
    **own: Any,
) -> VisionLanguage:
    config, network = getattr(t, f"{kind}Config"), getattr(t, f"{kind}ForConditionalGeneration")
    pinpoints = {} if kind == "Llava" else {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}
    return VisionLanguage(
        network=lambda ids: (
            network,
            config(image_token_index=ids["<image>"], vision_config=tower, text_config=text, **pinpoints, **features),
        ),
        processor=(f"{kind}Processor", own),
        images=images,
        special={"image_token": "<image>", "video": "<video>"},
        template=template("<image>"),
    )


def gemma(**text: Any) -> VisionLanguage:
    return VisionLanguage(
        network=lambda ids: (
            t.Gemma3ForConditionalGeneration,
            t.Gemma3Config(
                image_token_id=ids["<image_soft_token>"],
                boi_token_index=ids["<start_of_image>"],
                eoi_token_index=ids["<end_of_image>"],
                mm_tokens_per_image=4,
                vision_config=SIGLIP,
                text_config={**LANGUAGE, "head_dim": 8, "sliding_window": 16, **text},
            ),
        ),
        processor=("Gemma3Processor", {"image_seq_length": 4}),
        images=("Gemma3ImageProcessorPil", {"size": SQUARE}),
        special={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        template=template("<start_of_image>", after=""),
    )


def blip_2(name: str, kind: str) -> VisionLanguage:
    return VisionLanguage(
        network=lambda ids: (
            getattr(t, f"{name}ForConditionalGeneration"),
            getattr(t, f"{name}Config")(
                image_token_index=ids["<image>"],
                num_query_tokens=4,
                vision_config={**TOWER, "model_type": f"{kind}_vision_model"},
                qformer_config={
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "encoder_hidden_size": 32,
                    "vocab_size": 160,
                },
                text_config={
                    "model_type": "opt",
                    "hidden_size": 32,
                    "word_embed_proj_dim": 32,
                    "ffn_dim": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "vocab_size": 160,
                    "max_position_embeddings": 128,
                    "pad_token_id": 0,
                    "bos_token_id": 1,
                    "eos_token_id": 2,
                },
            ),
        ),
        processor=(f"{name}Processor", {"num_query_tokens": 4}),
        images=("BlipImageProcessorPil", {"size": SQUARE}),
        special={"image": "<image>"},
    )
