"""Sizes from configurations: parameters as transformers counts them, operations as torch counts them."""

import json
import tomllib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
import torch
import transformers as tf
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from s2m3.agents.checkpoints.networks.openclip import ModifiedResNet
from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.sizes import ANSWER_TOKENS, QUESTION_TOKENS, TEXT_TOKENS, Size, sizes_of

# Configurations of published checkpoints, as far as they differ from the defaults.
B16 = {"vision_config": {"patch_size": 16}, "text_config": {}, "projection_dim": 512}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768}
VISION_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
VISION_L = {**VISION_L, "patch_size": 14, "projection_dim": 768}
L14: dict[str, Any] = {"vision_config": VISION_L, "text_config": TEXT_L, "projection_dim": 768}
L14_336: dict[str, Any] = {**L14, "vision_config": {**VISION_L, "image_size": 336}}
VICUNA = {"model_type": "llama", "vocab_size": 32000}
VICUNA_13 = {**VICUNA, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40}
VICUNA_13 |= {"num_attention_heads": 40, "num_key_value_heads": 40}
TINY_LLAMA = {**VICUNA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22}
TINY_LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 4}
PHI_3 = {"model_type": "phi3", "tie_word_embeddings": False}
MISTRAL = {"model_type": "mistral"}
QWEN_2 = {"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864}
QWEN_2 |= {"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
WHISPER_BASE = {"d_model": 512, "encoder_layers": 6, "encoder_ffn_dim": 2048, "encoder_attention_heads": 8}
WHISPER_BASE |= {"decoder_layers": 6, "decoder_ffn_dim": 2048, "decoder_attention_heads": 8}


def resnet(width: int, layers: list[int], pixels: int, out: int, text: int) -> dict[str, Any]:
    vision = {"image_size": pixels, "layers": layers, "width": width}
    return {"model_cfg": {"embed_dim": out, "vision_cfg": vision, "text_cfg": {"width": text, "layers": 12}}}


def sizes(architecture: str, config: dict[str, Any]) -> dict[str, Size]:
    whole = {"architectures": [architecture], **config} if architecture else config
    found = sizes_of(architecture_of(whole), whole)
    assert None not in found.values()
    return {part: size for part, size in found.items() if size is not None}


def counted(network: Any) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(build: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return build().eval()


def clip_towers(config: dict[str, Any]) -> tuple[Any, Any]:
    out = config["projection_dim"]
    vision = tf.CLIPVisionConfig(**{**config["vision_config"], "projection_dim": out})
    text = tf.CLIPTextConfig(**{**config["text_config"], "projection_dim": out})
    return (
        on_meta(lambda: tf.CLIPVisionModelWithProjection(vision)),
        on_meta(lambda: tf.CLIPTextModelWithProjection(text)),
    )


# Parameters.


@pytest.mark.parametrize("config", [B16, L14, L14_336], ids=["b16", "l14", "l14-336"])
def test_clip_has_the_parameters_that_transformers_counts(config: dict[str, Any]) -> None:
    vision, text = clip_towers(config)
    found = sizes("CLIPModel", config)
    assert found["vision"].count.parameters == counted(vision)
    assert found["text"].count.parameters == counted(text)


#: facts of the paper: millions of vision, text, the token embedding; operations of image and text.
PAPER = {
    "rn50": (resnet(64, [3, 4, 6, 3], 224, 1024, 512), 38.32, 63.69, 25.30, 12.2, 6.0),
    "rn101": (resnet(64, [3, 4, 23, 3], 224, 512, 512), 56.26, 63.43, 25.30, 19.5, 6.0),
    "rn50x4": (resnet(80, [4, 6, 10, 6], 288, 640, 640), 87.14, 91.16, 31.62, 42.6, 9.3),
    "rn50x16": (resnet(96, [6, 8, 18, 8], 384, 768, 768), 167.33, 123.65, 37.95, 149, 13.3),
    "rn50x64": (resnet(128, [3, 15, 36, 10], 448, 1024, 1024), 420.38, 202.88, 50.59, 529, 23.6),
    "b32": ({**B16, "vision_config": {}}, 87.85, 63.43, 25.30, 8.8, 6.0),
    "b16": (B16, 86.19, 63.43, 25.30, 35.1, 6.0),
    "l14": (L14, 303.97, 123.65, 37.95, 162, 13.3),
    "l14-336": (L14_336, 304.29, 123.65, 37.95, 382, 13.3),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_nine_clips_have_the_sizes_that_are_known_of_them(name: str) -> None:
    config, *known = PAPER[name]
    found = sizes("" if "model_cfg" in config else "CLIPModel", config)
    vision, text = found["vision"], found["text"]
    millions = [vision.count.parameters, text.count.parameters, text.count.lookup]
    assert [count / 1e6 for count in millions] == pytest.approx(known[:3], abs=0.005)
    # The known figures of the ResNets pool from every place of the picture; the one that is used is counted here.
    assert [vision.gflops, text.gflops] == pytest.approx(known[3:], rel=0.055 if "model_cfg" in config else 0.01)


@pytest.mark.parametrize(
    ("text", "millions"),
    [(VICUNA, 6738.4), (VICUNA_13, 13015.9), (TINY_LLAMA, 1100.0), (PHI_3, 3821.1), (MISTRAL, 7241.7), (QWEN_2, 494.0)],
    ids=["vicuna-7b", "vicuna-13b", "tinyllama", "phi-3", "mistral", "qwen2"],
)
def test_a_llava_has_the_parameters_that_transformers_counts(text: dict[str, Any], millions: float) -> None:
    config: dict[str, Any] = {
        "vision_config": {**L14_336["vision_config"], "model_type": "clip_vision_model"},
        "text_config": text,
    }
    config |= {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
    whole = on_meta(lambda: tf.LlavaForConditionalGeneration(tf.LlavaConfig(**json.loads(json.dumps(config)))))
    found = sizes("LlavaForConditionalGeneration", config)
    tower = counted(whole.model.vision_tower)
    assert found["vision"].count.parameters == tower
    assert tower / 1e6 == pytest.approx(303.5, abs=0.05)
    assert found["decoder"].count.parameters == counted(whole) - tower
    projector = counted(whole.model.multi_modal_projector)
    assert (counted(whole) - tower - projector) / 1e6 == pytest.approx(millions, abs=0.6)
    assert found["vision"].outputs["hidden_states"] == (577, 1024)


def test_vit_gpt2_has_the_parameters_that_transformers_counts() -> None:
    config = {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "gpt2", "add_cross_attention": True}}
    found = sizes("VisionEncoderDecoderModel", config)
    vit = on_meta(lambda: tf.ViTModel(tf.ViTConfig(), add_pooling_layer=False))
    gpt2 = on_meta(lambda: tf.GPT2LMHeadModel(tf.GPT2Config(add_cross_attention=True)))
    assert found["vision"].count.parameters == counted(vit)
    assert found["decoder"].count.parameters == counted(gpt2)
    assert found["decoder"].count.parameters / 1e6 == pytest.approx(152.8, abs=0.05)


@pytest.mark.parametrize("name", ["BlipForConditionalGeneration", "BlipForQuestionAnswering"])
def test_blip_has_the_parameters_that_transformers_counts(name: str) -> None:
    found = sizes(name, {"vision_config": {}, "text_config": {}})
    whole = on_meta(lambda: getattr(tf, name)(tf.BlipConfig()))
    assert found["vision"].count.parameters == counted(whole.vision_model)
    assert found["decoder"].count.parameters == counted(whole.get_submodule("text_decoder"))
    if "question" in found:
        assert found["question"].count.parameters == counted(whole.get_submodule("text_encoder"))


@pytest.mark.parametrize("head", [True, False])
def test_siglip_has_the_parameters_that_transformers_counts(head: bool) -> None:  # noqa: FBT001
    found = sizes("SiglipModel", {"vision_config": {"vision_use_head": head}, "text_config": {}})
    vision = on_meta(lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(vision_use_head=head)))
    assert found["vision"].count.parameters == counted(vision)
    text = on_meta(lambda: tf.SiglipTextModel(tf.SiglipTextConfig(bos_token_id=1, eos_token_id=2)))
    assert found["text"].count.parameters == counted(text)


@pytest.mark.parametrize("fused", [False, True])
def test_clap_has_the_parameters_that_transformers_counts(fused: bool) -> None:  # noqa: FBT001
    audio = {"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {}
    found = sizes("ClapModel", {"audio_config": audio, "text_config": {}, "projection_dim": 512})
    whole = on_meta(lambda: tf.ClapAudioModelWithProjection(tf.ClapAudioConfig(**audio)))
    assert found["audio"].count.parameters == counted(whole)
    assert found["text"].count.parameters == counted(
        on_meta(lambda: tf.ClapTextModelWithProjection(tf.ClapTextConfig()))
    )


def test_whisper_has_the_parameters_that_transformers_counts() -> None:
    found = sizes("WhisperForConditionalGeneration", {"model_type": "whisper", **WHISPER_BASE})
    whole = on_meta(lambda: tf.WhisperForConditionalGeneration(tf.WhisperConfig(**WHISPER_BASE)))
    assert found["audio"].count.parameters == counted(whole.model.encoder)
    assert found["audio"].count.parameters + found["decoder"].count.parameters == counted(whole)


def test_classifiers_have_the_parameters_that_transformers_counts() -> None:
    labels = {str(n): str(n) for n in range(7)}
    found = sizes("ViTForImageClassification", {"model_type": "vit", "id2label": labels})
    whole = on_meta(lambda: tf.ViTForImageClassification(tf.ViTConfig(num_labels=7)))
    assert found["vision"].count.parameters == counted(whole.vit)
    assert found["head"].count.parameters == counted(whole.classifier)
    found = sizes("BertForSequenceClassification", {"model_type": "bert", "id2label": labels})
    bert = on_meta(lambda: tf.BertForSequenceClassification(tf.BertConfig(num_labels=7)))
    assert found["head"].count.parameters == counted(bert)


def test_defaults_are_those_of_transformers() -> None:
    text = files("s2m3.schemas").joinpath("sizes/defaults.toml").read_text(encoding="utf-8")
    for kind, ours in tomllib.loads(text).items():
        theirs = tf.CONFIG_MAPPING[kind](bos_token_id=1, eos_token_id=2)
        theirs = json.loads(json.dumps({key: getattr(theirs, key) for key in ours}))
        assert ours == theirs, kind


# Operations, on small networks that really run.


def operations(run: Callable[[], Any]) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
EAGER: dict[str, Any] = {"attn_implementation": "eager"}


def test_operations_of_clip_are_those_that_torch_counts() -> None:
    vision = {**SMALL, "image_size": 64, "patch_size": 16}
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 11}
    found = sizes("CLIPModel", {"vision_config": vision, "text_config": text, "projection_dim": 24})
    eye = tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(**vision, projection_dim=24, **EAGER))
    assert found["vision"].count.flops == operations(lambda: eye(torch.zeros(1, 3, 64, 64)))
    reader = tf.CLIPTextModelWithProjection(tf.CLIPTextConfig(**text, projection_dim=24, eos_token_id=2, **EAGER))
    assert found["text"].count.flops == operations(lambda: reader(torch.ones(1, 11, dtype=torch.long)))
    assert found["vision"].outputs["pooler_output"] == (24,)


def test_operations_of_siglip_are_those_that_torch_counts() -> None:
    vision = {**SMALL, "image_size": 64, "patch_size": 16}
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 11}
    found = sizes("SiglipModel", {"vision_config": vision, "text_config": text})
    reader = tf.SiglipTextModel(
        tf.SiglipTextConfig(**text, bos_token_id=1, eos_token_id=2, projection_size=32, **EAGER)
    )
    assert found["text"].count.flops == operations(lambda: reader(torch.ones(1, 11, dtype=torch.long)))
    eye = tf.SiglipVisionModel(tf.SiglipVisionConfig(**vision, **EAGER)).train()  # nn.MHA's fast path is not counted
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        eye(torch.zeros(1, 3, 64, 64))
    assert found["vision"].count.flops == counter.get_total_flops()


def test_operations_of_clap_are_those_that_torch_counts() -> None:
    audio = {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "num_attention_heads": [2, 2, 4, 4],
        "depths": [2, 1, 2, 1],
    }
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 80}
    found = sizes("ClapModel", {"audio_config": audio, "text_config": text, "projection_dim": 24})
    ear = tf.ClapAudioModelWithProjection(tf.ClapAudioConfig(**audio, projection_dim=24, **EAGER)).eval()
    sound = torch.zeros(1, 1, 1024, 64)
    heard = operations(lambda: ear(sound, is_longer=torch.zeros(1, 1)))
    assert found["audio"].count.flops == pytest.approx(heard, rel=1e-9)
    reader = tf.ClapTextModelWithProjection(tf.ClapTextConfig(**text, projection_dim=24, **EAGER)).eval()
    tokens = torch.ones(1, TEXT_TOKENS, dtype=torch.long)
    assert found["text"].count.flops == operations(lambda: reader(tokens))


def written(network: Any, prompt: dict[str, Any], source: torch.Tensor | None, **more: Any) -> int:
    """Operations of ANSWER_TOKENS tokens: the prompt at once, then one at a time with the cache."""
    reads = {} if source is None else {"encoder_hidden_states": source}

    def run() -> None:
        out = network(**prompt, **reads, use_cache=True, **more)
        for _ in range(ANSWER_TOKENS - 1):
            token = torch.ones(1, 1, dtype=torch.long)
            out = network(input_ids=token, past_key_values=out.past_key_values, **reads, use_cache=True, **more)

    return operations(run)


def test_operations_of_vit_gpt2_are_those_that_torch_counts() -> None:
    encoder = {"model_type": "vit", **SMALL, "image_size": 64, "patch_size": 16}
    decoder = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 40}
    decoder["add_cross_attention"] = True
    found = sizes("VisionEncoderDecoderModel", {"encoder": encoder, "decoder": decoder})
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    gpt2 = tf.GPT2LMHeadModel(tf.GPT2Config(**{**decoder, **ids}, **EAGER)).eval()
    prompt = {"input_ids": torch.ones(1, 1, dtype=torch.long)}
    assert found["decoder"].count.flops == written(gpt2, prompt, torch.zeros(1, 17, 32))
    eye = tf.ViTModel(tf.ViTConfig(**encoder, **EAGER), add_pooling_layer=False).eval()
    assert found["vision"].count.flops == operations(lambda: eye(torch.zeros(1, 3, 64, 64)))


def test_operations_of_blip_are_those_that_torch_counts() -> None:
    vision = {**SMALL, "image_size": 64, "patch_size": 16}
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 80, "encoder_hidden_size": 32}
    found = sizes("BlipForQuestionAnswering", {"vision_config": vision, "text_config": text})
    given = tf.BlipTextConfig(**text, bos_token_id=1, eos_token_id=2, sep_token_id=2, **EAGER)
    question = torch.ones(1, TEXT_TOKENS, dtype=torch.long)
    reader = BlipTextModel(given, add_pooling_layer=False).eval()
    picture = torch.zeros(1, 17, 32)
    read = operations(lambda: reader(input_ids=question, encoder_hidden_states=picture))
    assert found["question"].count.flops == read
    writer = BlipTextLMHeadModel(given).eval()
    prompt = {"input_ids": torch.ones(1, 1, dtype=torch.long)}
    assert found["decoder"].count.flops == written(writer, prompt, torch.zeros(1, TEXT_TOKENS, 32), is_decoder=True)


def test_operations_of_a_llava_are_those_that_torch_counts() -> None:
    vision = {**SMALL, "image_size": 64, "patch_size": 16, "model_type": "clip_vision_model"}
    text: dict[str, Any] = {
        **SMALL,
        "hidden_size": 40,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
    }
    text = {**text, "model_type": "llama", "head_dim": 10}
    found = sizes("LlavaForConditionalGeneration", {"vision_config": vision, "text_config": text})
    llama = tf.LlamaForCausalLM(tf.LlamaConfig(**text, **EAGER)).eval()
    prompt = {"inputs_embeds": torch.zeros(1, 16 + QUESTION_TOKENS, 40)}
    projector = 2 * 16 * (32 * 40 + 40 * 40)
    assert found["decoder"].count.flops == projector + written(llama, prompt, None, logits_to_keep=1)


def test_operations_of_whisper_are_those_that_torch_counts() -> None:
    dims = {"d_model": 32, "encoder_layers": 2, "encoder_ffn_dim": 48, "encoder_attention_heads": 4, "vocab_size": 50}
    dims |= {"decoder_layers": 2, "decoder_ffn_dim": 48, "decoder_attention_heads": 4, "max_source_positions": 30}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    found = sizes("WhisperForConditionalGeneration", {"model_type": "whisper", **dims})
    given = tf.WhisperConfig(**dims, **ids, **EAGER)
    ear = WhisperEncoder(given).eval()
    assert found["audio"].count.flops == operations(lambda: ear(torch.zeros(1, 80, 60)))
    writer = tf.WhisperForConditionalGeneration(given).model.decoder.eval()
    prompt = {"input_ids": torch.ones(1, 4, dtype=torch.long)}
    last = 2 * 32 * 50 * ANSWER_TOKENS
    assert found["decoder"].count.flops == last + written(writer, prompt, torch.zeros(1, 30, 32))


def test_operations_of_a_clip_resnet_are_those_that_torch_counts() -> None:
    config = resnet(16, [1, 2, 1, 1], 64, 24, 32)
    config["model_cfg"]["text_cfg"] |= {"layers": 2, "heads": 4, "vocab_size": 50, "context_length": 11}
    found = sizes("", config)
    with torch.device("meta"):
        eye = ModifiedResNet(config["model_cfg"]).eval()
    assert found["vision"].count.parameters == counted(eye)
    # The one query of the pooling: scaled_dot_product_attention is not counted on every device.
    pooling = 4 * 1 * 5 * 512
    seen = operations(lambda: eye(torch.zeros(1, 3, 64, 64, device="meta")))
    assert found["vision"].count.flops - seen in (0, pooling)


# What is not known, and what is wrong.


def test_a_network_without_a_formula_has_no_size() -> None:
    config = {"architectures": ["SwinForImageClassification"], "model_type": "swin"}
    assert sizes_of(architecture_of(config), config)["vision"] is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"vision_config": {"hidden_size": "wide"}, "text_config": {}}, "sizes do not follow"),
        ({"vision_config": {"patch_size": 0}, "text_config": {}}, "sizes do not follow"),
        ({"vision_config": 3, "text_config": {}}, "sizes do not follow"),
        ({"vision_config": {"image_size": float("inf")}, "text_config": {}}, "sizes do not follow"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], said: str) -> None:
    config["architectures"] = ["CLIPModel"]
    with pytest.raises(BadDefinitionError, match=said):
        sizes_of(architecture_of(config), config)


def test_a_number_that_is_missing_is_named() -> None:
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "vision_config": {},
        "text_config": {"model_type": "qwen2"},
    }
    with pytest.raises(BadDefinitionError, match="hidden_size is missing"):
        sizes_of(architecture_of(config), config)
