"""Vision-language models: a question about one or several pictures, answered by `generate` of the whole model."""

import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import transformers as t
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.checkpoints.tiny import WORDS
from tests.families.family import LONGEST, Family
from tests.zoo.samples import sample

__all__ = ["CHECKPOINTS", "VISION_LANGUAGE", "WIDE_GEMMA", "randomise"]

CAT, ROCKET = sample("chelsea.jpg"), sample("rocket.jpg")
_FIRST = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]
_TEXT = {
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
_TOWER = {
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
_LLAMA = {**_TEXT, "model_type": "llama"}
_SIGLIP = {**_TOWER, "model_type": "siglip_vision_model", "vision_use_head": False}
_SQUARE = {"height": 32, "width": 32}


def _template(picture: str, before: str = "", after: str = "\n") -> str:
    """A chat template in the published form: roles, pictures where they stand, the generation prompt."""
    return (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] }} : "
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}" + before + picture + after + "{% elif content['type'] == 'text' %}"
        "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )


@dataclass(frozen=True)
class _Checkpoint:
    """A tiny checkpoint's folder.

    Args:
        network: Class and configuration; `ids` are the special tokens' numbers.
        processor: Class of the processor, and its own settings.
        images: Class of the image processor (Pillow's), and its settings.
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
        getattr(t, kind)(**settings).save_pretrained(folder)
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


def _idefics(name: str) -> _Checkpoint:
    config, kind = getattr(t, f"{name}Config"), getattr(t, f"{name}ForConditionalGeneration")
    tiles = {f"<row_{i + 1}_col_{j + 1}>": f"<row_{i + 1}_col_{j + 1}>" for i in range(2) for j in range(2)}
    return _Checkpoint(
        network=lambda ids: (
            kind,
            config(
                image_token_id=ids["<image>"],
                scale_factor=2,
                vision_config=dict(_TOWER),
                text_config=_LLAMA,
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
        template=_template("<image>"),
    )


def _qwen(version: str, tower: dict[str, Any], **text: Any) -> _Checkpoint:
    config, kind = getattr(t, f"{version}Config"), getattr(t, f"{version}ForConditionalGeneration")
    return _Checkpoint(
        network=lambda ids: (
            kind,
            config(
                image_token_id=ids["<|image_pad|>"],
                video_token_id=ids["<|video_pad|>"],
                vision_start_token_id=ids["<|vision_start|>"],
                vision_end_token_id=ids["<|vision_end|>"],
                vision_config={**_QWEN_TOWER, **tower},
                text_config={**_TEXT, **_ROPE, **text},
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
        template=_template("<|vision_start|><|image_pad|><|vision_end|>", after=""),
    )


def _llava(
    kind: str,
    tower: dict[str, Any],
    text: dict[str, Any],
    images: tuple[str, dict[str, Any]],
    features: Mapping[str, Any] = MappingProxyType({}),
    **own: Any,
) -> _Checkpoint:
    config, network = getattr(t, f"{kind}Config"), getattr(t, f"{kind}ForConditionalGeneration")
    pinpoints = {} if kind == "Llava" else {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}
    return _Checkpoint(
        network=lambda ids: (
            network,
            config(image_token_index=ids["<image>"], vision_config=tower, text_config=text, **pinpoints, **features),
        ),
        processor=(f"{kind}Processor", own),
        images=images,
        special={"image_token": "<image>", "video": "<video>"},
        template=_template("<image>"),
    )


def _gemma(**text: Any) -> _Checkpoint:
    return _Checkpoint(
        network=lambda ids: (
            t.Gemma3ForConditionalGeneration,
            t.Gemma3Config(
                image_token_id=ids["<image_soft_token>"],
                boi_token_index=ids["<start_of_image>"],
                eoi_token_index=ids["<end_of_image>"],
                mm_tokens_per_image=4,
                vision_config=_SIGLIP,
                text_config={**_TEXT, "head_dim": 8, "sliding_window": 16, **text},
            ),
        ),
        processor=("Gemma3Processor", {"image_seq_length": 4}),
        images=("Gemma3ImageProcessorPil", {"size": _SQUARE}),
        special={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        template=_template("<start_of_image>", after=""),
    )


def _blip_2(name: str, kind: str) -> _Checkpoint:
    return _Checkpoint(
        network=lambda ids: (
            getattr(t, f"{name}ForConditionalGeneration"),
            getattr(t, f"{name}Config")(
                image_token_index=ids["<image>"],
                num_query_tokens=4,
                vision_config={**_TOWER, "model_type": f"{kind}_vision_model"},
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
        images=("BlipImageProcessorPil", {"size": _SQUARE}),
        special={"image": "<image>"},
    )


#: Another size, whose tower has the same numbers.
WIDE_GEMMA = _gemma(hidden_size=48)
CHECKPOINTS: dict[str, _Checkpoint] = {
    "smolvlm": _idefics("SmolVLM"),
    "idefics3": _idefics("Idefics3"),
    "gemma3": _gemma(),
    "qwen2-vl": _qwen("Qwen2VL", {"embed_dim": 32}),
    "qwen2-5-vl": _qwen(
        "Qwen2_5_VL",
        {"out_hidden_size": 32, "intermediate_size": 64, "window_size": 32, "fullatt_block_indexes": [1]},
    ),
    "qwen3-vl": _qwen(
        "Qwen3VL",
        {
            "depth": 3,
            "out_hidden_size": 32,
            "intermediate_size": 64,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        head_dim=8,
    ),
    "llava": _llava(
        "Llava",
        {**_TOWER, "model_type": "clip_vision_model"},
        _LLAMA,
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": _SQUARE}),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ),
    "llava-siglip": _llava(
        "Llava",
        {**_TOWER, "model_type": "siglip_vision_model"},
        _LLAMA,
        ("SiglipImageProcessorPil", {"size": _SQUARE}),
        {"vision_feature_select_strategy": "full", "vision_feature_layer": -1},
        patch_size=8,
        vision_feature_select_strategy="full",
    ),
    "llava-next": _llava(
        "LlavaNext",
        {**_TOWER, "model_type": "clip_vision_model"},
        _LLAMA,
        (
            "LlavaNextImageProcessorPil",
            {
                "size": {"shortest_edge": 32},
                "crop_size": _SQUARE,
                "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]],
            },
        ),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ),
    "llava-onevision": _llava(
        "LlavaOnevision",
        {**_TOWER, "model_type": "siglip_vision_model"},
        {**_TEXT, "model_type": "qwen2"},
        ("LlavaOnevisionImageProcessorPil", {"size": _SQUARE, "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    ),
    "internvl": _Checkpoint(
        network=lambda ids: (
            t.InternVLForConditionalGeneration,
            t.InternVLConfig(
                image_token_id=ids["<IMG_CONTEXT>"],
                downsample_ratio=0.5,
                vision_config={**_TOWER, "image_size": [32, 32], "patch_size": [8, 8]},
                text_config={**_TEXT, "model_type": "qwen2"},
            ),
        ),
        processor=("InternVLProcessor", {"image_seq_length": 4}),
        images=("GotOcr2ImageProcessorPil", {"size": _SQUARE, "crop_to_patches": True, "max_patches": 4}),
        special={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        template=_template("<IMG_CONTEXT>"),
    ),
    "mistral3": _Checkpoint(
        network=lambda ids: (
            t.Mistral3ForConditionalGeneration,
            t.Mistral3Config(
                image_token_index=ids["[IMG]"],
                spatial_merge_size=2,
                vision_config={**_TOWER, "model_type": "pixtral", "head_dim": 8, "image_size": 64},
                text_config={**_TEXT, "model_type": "mistral", "head_dim": 8},
            ),
        ),
        processor=("PixtralProcessor", {"patch_size": 8, "spatial_merge_size": 2}),
        images=("PixtralImageProcessorPil", {"size": {"longest_edge": 64}, "patch_size": {"height": 16, "width": 16}}),
        special={"image": "[IMG]", "break": "[IMG_BREAK]", "end": "[IMG_END]"},
        template=_template("[IMG]", after=""),
    ),
    "aya-vision": _Checkpoint(
        network=lambda ids: (
            t.AyaVisionForConditionalGeneration,
            t.AyaVisionConfig(
                image_token_index=ids["<|IMG_PATCH|>"],
                downsample_factor=2,
                vision_config={**_TOWER, "model_type": "siglip_vision_model"},
                text_config={**_TEXT, "model_type": "cohere2", "sliding_window": 16, "head_dim": 8},
            ),
        ),
        processor=("AyaVisionProcessor", {"patch_size": 8, "img_size": 32, "downsample_factor": 2}),
        images=("GotOcr2ImageProcessorPil", {"size": _SQUARE, "crop_to_patches": True, "max_patches": 2}),
        special={
            "image": "<image>",
            "start": "<|START_OF_IMG|>",
            "end": "<|END_OF_IMG|>",
            "patch": "<|IMG_PATCH|>",
            "line": "<|IMG_LINE_BREAK|>",
            "tile": "TILE",
            "tile_global": "TILE_GLOBAL",
        },
        template=_template("<image>"),
    ),
    "paligemma": _Checkpoint(
        network=lambda ids: (
            t.PaliGemmaForConditionalGeneration,
            t.PaliGemmaConfig(
                image_token_index=ids["<image>"],
                projection_dim=32,
                vision_config=_SIGLIP,
                text_config={**_TEXT, "vocab_size": 1400, "model_type": "gemma2", "head_dim": 8},
            ),
        ),
        processor=("PaliGemmaProcessor", {}),
        images=("SiglipImageProcessorPil", {"size": _SQUARE, "image_seq_length": 16}),
        special={"image_token": "<image>"},
    ),
    "blip-2": _blip_2("Blip2", "blip_2"),
    "instruct-blip": _blip_2("InstructBlip", "instructblip"),
    "florence-2": _Checkpoint(
        network=lambda ids: (
            t.Florence2ForConditionalGeneration,
            t.Florence2Config(
                image_token_id=ids["<image>"],
                vision_config={
                    "depths": [1, 1],
                    "patch_size": [7, 3],
                    "patch_stride": [4, 2],
                    "patch_padding": [3, 1],
                    "patch_prenorm": [False, True],
                    "embed_dim": [16, 32],
                    "num_heads": [2, 4],
                    "num_groups": [2, 4],
                    "window_size": 4,
                    "projection_dim": 32,
                },
                text_config={
                    "model_type": "bart",
                    "d_model": 32,
                    "encoder_layers": 2,
                    "decoder_layers": 2,
                    "encoder_attention_heads": 4,
                    "decoder_attention_heads": 4,
                    "encoder_ffn_dim": 64,
                    "decoder_ffn_dim": 64,
                    "vocab_size": 160,
                    "max_position_embeddings": 256,
                    "pad_token_id": 0,
                    "bos_token_id": 1,
                    "eos_token_id": 2,
                    "decoder_start_token_id": 2,
                    "forced_eos_token_id": 2,
                },
            ),
        ),
        processor=("Florence2Processor", {"num_additional_image_tokens": 1}),
        images=("CLIPImageProcessorPil", {"size": _SQUARE, "do_center_crop": False, "image_seq_length": 17}),
        special={"image_token": "<image>"},
        generation={"decoder_start_token_id": 2, "forced_eos_token_id": 2},
        deviation=0.8,
    ),
    "got-ocr2": _Checkpoint(
        network=lambda ids: (
            t.GotOcr2ForConditionalGeneration,
            t.GotOcr2Config(
                image_token_id=ids["<imgpad>"],
                vision_config={
                    "hidden_size": 32,
                    "output_channels": 8,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "image_size": 1024,
                    "patch_size": 16,
                    "mlp_dim": 64,
                    "window_size": 8,
                    "global_attn_indexes": [],
                },
                text_config={**_TEXT, "model_type": "qwen2"},
            ),
        ),
        processor=("GotOcr2Processor", {}),
        images=("GotOcr2ImageProcessorPil", {"size": {"height": 1024, "width": 1024}}),
        special={
            "start": "<|im_start|>",
            "end": "<|im_end|>",
            "img": "<img>",
            "img_end": "</img>",
            "pad": "<imgpad>",
        },
    ),
}
_ASKED: list[dict[str, Any]] = [{"image": CAT, "text": "what is this"}, {"image": ROCKET, "text": "who sits there"}]
_TWO: dict[str, Any] = {"image": [CAT, ROCKET], "text": "what is this"}
#: Families that are asked about one picture.
_ONE = ("llava", "llava-siglip")


def _row(name: str, checkpoint: _Checkpoint) -> Family:
    if checkpoint.template:
        asks: list[dict[str, Any]] = _ASKED if name in _ONE else [*_ASKED, _TWO]
        return Family(name, "vision-language", checkpoint.write, asks, _chat)
    if name == "got-ocr2":
        return Family(name, "vision-language", checkpoint.write, [{"image": CAT}, {"image": ROCKET}], _reading)
    return Family(name, "vision-language", checkpoint.write, _ASKED, _plain)


VISION_LANGUAGE = [_row(name, checkpoint) for name, checkpoint in CHECKPOINTS.items()]
