"""Tiny checkpoints of every architecture, as transformers saves them, with weights that matter: N(0, 0.2)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = [
    *("USER", "ASSISTANT", "a", "photo", "of", "the", "cat", "dog", "on", "mat", "what", "is", "this", "red", "blue"),
    *("two", "one", "who", "sits", "there", "yes", "no"),
]
PAD, BOS, EOS, UNK, IMAGE = range(5)
VOCABULARY = {name: i for i, name in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", "<image>", *WORDS])}
SIZE = len(VOCABULARY)
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_PICTURE = {**_TOWER, "image_size": 32, "patch_size": 8}
#: Of a configuration of texts: the vocabulary.
VOCABULARY_SETTINGS = {"vocab_size": SIZE, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_TEXT = {**_TOWER, **VOCABULARY_SETTINGS, "max_position_embeddings": 40}


def tokenizer(folder: Path, longest: int = 24, *, marks_last: bool = False, **how: Any) -> None:
    """`marks_last`: the end mark has the largest id, as in CLIP's own vocabulary."""
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<image>"])
    end = WORDS[-1] if marks_last else "[EOS]"
    marks = [("[BOS]", BOS), (end, VOCABULARY[end])]
    made.post_processor = processors.TemplateProcessing(single=f"[BOS] $A {end}", special_tokens=marks)
    names = {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    t.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=longest, **names, **how).save_pretrained(folder)


def pictures(folder: Path, kind: str = "CLIPImageProcessorPil") -> None:
    size = {"height": 32, "width": 32}
    settings = {"size": {"shortest_edge": 32}} if kind.startswith("ConvNext") else {"size": size}
    settings |= {"crop_size": size} if kind.startswith("CLIP") else {}
    getattr(t, kind)(**settings).save_pretrained(folder)


def save(network: Any, folder: Path, *, seed: int = 7, writer: float = 0.2, **how: Any) -> Path:
    """Saves a network with weights N(0, 0.2): the default initialisation can make any comparison come out equal.

    `writer` is the deviation of a text decoder's matrices: large enough that what it writes depends on the picture.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim():
                deviation = writer if "decoder" in name and "bias" not in name else 0.2
                weight.normal_(0, deviation, generator=generator)
    network.eval().save_pretrained(folder, **how)
    return folder


def clip_config() -> Any:
    return t.CLIPConfig(vision_config=_PICTURE, text_config=_TEXT, projection_dim=16)


def make_clip(folder: Path) -> None:
    save(t.CLIPModel(clip_config()), folder, max_shard_size="40KB")  # several shards
    tokenizer(folder)
    pictures(folder)


def make_siglip(folder: Path) -> None:
    config = t.SiglipConfig(vision_config=_PICTURE, text_config={**_TEXT, "projection_size": 32})
    save(t.SiglipModel(config), folder)
    tokenizer(folder, model_input_names=["input_ids"])
    pictures(folder, "SiglipImageProcessorPil")


def make_clap(folder: Path) -> None:
    sound = {"hidden_size": 64, "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 32}
    spectrum = {"num_mel_bins": 16, "spec_size": 32, "window_size": 4, "num_classes": 3}
    config = t.ClapConfig(audio_config={**sound, **spectrum}, text_config=_TEXT, projection_dim=16)
    save(t.ClapModel(config), folder)
    tokenizer(folder)
    t.ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, max_length_s=1, fft_window_size=512, hop_length=320, frequency_max=8000,
        truncation="rand_trunc", padding="repeatpad",
    ).save_pretrained(folder)  # fmt: skip


def make_vit_gpt2(folder: Path) -> None:
    words = t.GPT2Config(
        n_embd=48, n_layer=2, n_head=4, vocab_size=SIZE, bos_token_id=BOS, eos_token_id=EOS, add_cross_attention=True,
        is_decoder=True,
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(t.ViTConfig(**_PICTURE), words)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, PAD, EOS
    network = t.VisionEncoderDecoderModel(config)
    network.generation_config = t.GenerationConfig(decoder_start_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    save(network, folder, writer=0.6)
    tokenizer(folder)
    pictures(folder, "ViTImageProcessorPil")


def blip_config() -> Any:
    return t.BlipConfig(
        vision_config=_PICTURE,
        text_config={**_TEXT, "encoder_hidden_size": 32, "sep_token_id": EOS, "projection_dim": 16},
        projection_dim=16,
    )


def make_blip_captioning(folder: Path) -> None:
    save(t.BlipForConditionalGeneration(blip_config()), folder, seed=8, writer=1.0)
    tokenizer(folder)
    pictures(folder, "BlipImageProcessorPil")


def make_blip_vqa(folder: Path) -> None:
    save(t.BlipForQuestionAnswering(blip_config()), folder)
    tokenizer(folder)
    pictures(folder, "BlipImageProcessorPil")


def make_llava(folder: Path, tower: dict[str, Any] | None = None) -> None:
    words = t.LlamaConfig(**{**_TEXT, "max_position_embeddings": 64}, num_key_value_heads=2)
    vision = t.CLIPVisionConfig(**(tower or _PICTURE))
    config = t.LlavaConfig(vision_config=vision, text_config=words, image_token_index=IMAGE)
    save(t.LlavaForConditionalGeneration(config), folder, max_shard_size="60KB")
    tokenizer(folder, longest=64)
    pictures(folder)
    (folder / "chat_template.jinja").write_text(VICUNA)


#: As llava-1.5-7b-hf has it.
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def make_whisper(folder: Path) -> None:
    network = t.WhisperForConditionalGeneration(
        t.WhisperConfig(
            vocab_size=SIZE, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=16, max_source_positions=50,
            max_target_positions=40, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, decoder_start_token_id=BOS,
            suppress_tokens=[UNK], begin_suppress_tokens=[EOS],
        )
    )  # fmt: skip
    network.generation_config = t.GenerationConfig(
        decoder_start_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, suppress_tokens=[UNK],
        begin_suppress_tokens=[EOS],
    )  # fmt: skip
    save(network, folder)
    tokenizer(folder)
    t.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)


_LABELS = {"id2label": {0: "cat", 1: "dog", 2: "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}}


def make_vit_classifier(folder: Path) -> None:
    save(t.ViTForImageClassification(t.ViTConfig(**_PICTURE, **_LABELS)), folder)
    pictures(folder, "ViTImageProcessorPil")


def make_resnet_classifier(folder: Path) -> None:
    config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **_LABELS)
    save(t.ResNetForImageClassification(config), folder)
    pictures(folder, "ConvNextImageProcessorPil")


def make_text_classifier(folder: Path) -> None:
    config = t.DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=SIZE, pad_token_id=PAD, **_LABELS
    )
    save(t.DistilBertForSequenceClassification(config), folder)
    tokenizer(folder)


def make_fusion_head(folder: Path) -> None:
    """The trained head of an encoder-only VQA over CLIP's two embeddings."""
    folder.mkdir(exist_ok=True)
    layers = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Linear(24, 3))
    generator = torch.Generator().manual_seed(8)
    state = {
        name: torch.empty_like(weight).normal_(0, 0.2, generator=generator)
        for name, weight in layers.state_dict().items()
    }
    save_file(
        {f"classifier.{'1' if name[0] == '2' else '0'}{name[1:]}": weight for name, weight in state.items()},
        folder / "model.safetensors",
    )
    config = {"architectures": ["FusionClassifier"], "id2label": {"0": "yes", "1": "no", "2": "two"}}
    (folder / "config.json").write_text(json.dumps(config))


def make_open_clip_resnet(folder: Path) -> None:
    """A CLIP ResNet in open_clip's format: names and shapes written out here, not taken from our own network."""
    folder.mkdir(exist_ok=True)
    width, embed, side, words = 16, 16, 64, 32
    shapes: dict[str, tuple[int, ...]] = {"logit_scale": ()}

    def conv(name: str, norm: str, inside: int, out: int, kernel: int) -> None:
        shapes[f"visual.{name}.weight"] = (out, inside, kernel, kernel)
        shapes.update({f"visual.{norm}.{key}": (out,) for key in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"visual.{norm}.num_batches_tracked"] = ()

    for number, (inside, out) in enumerate(((3, width // 2), (width // 2, width // 2), (width // 2, width)), 1):
        conv(f"conv{number}", f"bn{number}", inside, out, 3)
    inside = width
    for number in range(4):
        planes = width * 2**number
        for block in range(2 if number == 1 else 1):
            at = f"layer{number + 1}.{block}"
            for part, (a, b, kernel) in enumerate(
                ((inside, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1)), 1
            ):
                conv(f"{at}.conv{part}", f"{at}.bn{part}", a, b, kernel)
            if block == 0:
                conv(f"{at}.downsample.0", f"{at}.downsample.1", inside, 4 * planes, 1)
            inside = 4 * planes
    shapes["visual.attnpool.positional_embedding"] = ((side // 32) ** 2 + 1, inside)
    for name, out in (("q_proj", inside), ("k_proj", inside), ("v_proj", inside), ("c_proj", embed)):
        shapes |= {f"visual.attnpool.{name}.weight": (out, inside), f"visual.attnpool.{name}.bias": (out,)}
    shapes |= {"token_embedding.weight": (SIZE, words), "positional_embedding": (24, words)}
    shapes |= {"ln_final.weight": (words,), "ln_final.bias": (words,), "text_projection": (words, embed)}
    for number in range(2):
        at = f"transformer.resblocks.{number}"
        shapes |= {f"{at}.ln_{n}.{key}": (words,) for n in (1, 2) for key in ("weight", "bias")}
        shapes |= {f"{at}.attn.in_proj_weight": (3 * words, words), f"{at}.attn.in_proj_bias": (3 * words,)}
        shapes |= {f"{at}.attn.out_proj.weight": (words, words), f"{at}.attn.out_proj.bias": (words,)}
        shapes |= {f"{at}.mlp.c_fc.weight": (4 * words, words), f"{at}.mlp.c_fc.bias": (4 * words,)}
        shapes |= {f"{at}.mlp.c_proj.weight": (words, 4 * words), f"{at}.mlp.c_proj.bias": (words,)}
    generator = torch.Generator().manual_seed(9)
    state = {name: torch.empty(shape).normal_(0, 0.2, generator=generator) for name, shape in shapes.items()}
    state |= {name: weight.abs() + 0.5 for name, weight in state.items() if name.endswith("running_var")}
    state |= {name: torch.tensor(7) for name in state if name.endswith("num_batches_tracked")}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": {
            "embed_dim": embed,
            "quick_gelu": True,
            "vision_cfg": {"image_size": side, "layers": [1, 2, 1, 1], "width": width, "patch_size": None},
            "text_cfg": {"context_length": 24, "vocab_size": SIZE, "width": words, "heads": 4, "layers": 2},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.3, 0.2]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tokenizer(folder, marks_last=True)


MAKERS: dict[str, Callable[[Path], None]] = {
    "tiny-clip": make_clip,
    "tiny-siglip": make_siglip,
    "tiny-clap": make_clap,
    "tiny-vit-gpt2": make_vit_gpt2,
    "tiny-blip": make_blip_captioning,
    "tiny-blip-vqa": make_blip_vqa,
    "tiny-llava": make_llava,
    "tiny-whisper": make_whisper,
    "tiny-vit": make_vit_classifier,
    "tiny-resnet": make_resnet_classifier,
    "tiny-distilbert": make_text_classifier,
    "tiny-fusion": make_fusion_head,
    "tiny-clip-resnet": make_open_clip_resnet,
}


def make_all(folder: Path) -> Path:
    t.logging.set_verbosity_error()
    t.logging.disable_progress_bar()
    for name, make in MAKERS.items():
        make(folder / name)
    return folder


def alter(folder: Path, tensor: str) -> None:
    """Changes one tensor of a checkpoint, in whichever file it is; not evenly, which a norm or a softmax would undo."""
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        if tensor in weights:
            weight = weights[tensor]
            weights[tensor] = 1 - 2 * weight.flip(0) if weight.dim() else weight + 0.5
            save_file(weights, path)
            return
    raise KeyError(tensor)
