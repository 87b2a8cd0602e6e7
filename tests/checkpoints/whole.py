"""The same tiny checkpoints whole: loaded by transformers itself into one process, run by its own forward passes.

Nothing of agents/checkpoints is used, so that a mistake made there is not made here too.
"""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
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


def finished(folder: Path, new: list[int]) -> str:
    """`stop` if the end mark is among the new tokens, or fewer came than allowed (Whisper leaves the mark out)."""
    end = t.AutoTokenizer.from_pretrained(folder).eos_token_id
    return "stop" if end in new or len(new) < LONGEST else "length"


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


def clip_resnet(folder: Path, image: bytes, text: list[str]) -> dict[str, Any]:
    """Vision in torch's functions, text in transformers' own CLIP text tower with the weights renamed."""
    state = load_file(folder / "open_clip_model.safetensors")
    config = json.loads((folder / "open_clip_config.json").read_text())
    pictures, words = (
        _modified_resnet(state, _open_clip_pixels(config, image)),
        _open_clip_text(folder, state, config, text),
    )
    pictures, words = F.normalize(pictures, dim=-1), F.normalize(words, dim=-1)
    return _ranked(text, (state["logit_scale"].exp() * pictures @ words.T)[0].softmax(-1))


def _open_clip_pixels(config: dict[str, Any], data: bytes) -> torch.Tensor:
    """Resized to the shorter side, cut to the middle, normalised: as open_clip's own transform."""
    side, norm = config["model_cfg"]["vision_cfg"]["image_size"], config["preprocess_cfg"]
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / min(picture.size)
    picture = picture.resize([int(length * scale) for length in picture.size], Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cut = torch.from_numpy(np.array(picture.crop((left, top, left + side, top + side)))).permute(2, 0, 1) / 255
    pixels: torch.Tensor = (cut - torch.tensor(norm["mean"])[:, None, None]) / torch.tensor(norm["std"])[:, None, None]
    return pixels[None].float()


def _modified_resnet(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    def conv(x: torch.Tensor, name: str, norm: str, stride: int = 1) -> torch.Tensor:
        kernel = state[f"visual.{name}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, scale, shift = (
            state[f"visual.{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, shift)

    for number in (1, 2, 3):
        x = F.relu(conv(x, f"conv{number}", f"bn{number}", 2 if number == 1 else 1))
    x = F.avg_pool2d(x, 2)
    for layer, blocks in enumerate((1, 2, 1, 1), 1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            pool = (lambda t: F.avg_pool2d(t, 2)) if layer > 1 and block == 0 else (lambda t: t)
            y = F.relu(conv(x, f"{at}.conv1", f"{at}.bn1"))
            y = pool(F.relu(conv(y, f"{at}.conv2", f"{at}.bn2")))
            y = conv(y, f"{at}.conv3", f"{at}.bn3")
            x = F.relu(y + (conv(pool(x), f"{at}.downsample.0", f"{at}.downsample.1") if block == 0 else x))
    p = {name: state[f"visual.attnpool.{name}"] for name in ("positional_embedding", *_POOL)}
    places = x.flatten(2).permute(2, 0, 1)
    places = torch.cat([places.mean(0, keepdim=True), places]) + p["positional_embedding"][:, None]
    pooled, _ = F.multi_head_attention_forward(
        places[:1], places, places, places.shape[-1], 8, None,
        torch.cat([p["q_proj.bias"], p["k_proj.bias"], p["v_proj.bias"]]), None, None, False, 0.0,  # noqa: FBT003 - torch's own order
        p["c_proj.weight"], p["c_proj.bias"], training=False, need_weights=False, use_separate_proj_weight=True,
        q_proj_weight=p["q_proj.weight"], k_proj_weight=p["k_proj.weight"], v_proj_weight=p["v_proj.weight"],
    )  # fmt: skip
    return pooled[0]


_POOL = [f"{name}.{kind}" for name in ("q_proj", "k_proj", "v_proj", "c_proj") for kind in ("weight", "bias")]


def _open_clip_text(
    folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any], text: list[str]
) -> torch.Tensor:
    model = config["model_cfg"]
    words, width = model["text_cfg"], model["text_cfg"]["width"]
    tower = t.CLIPTextModelWithProjection(
        t.CLIPTextConfig(
            vocab_size=words["vocab_size"], hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=words["layers"], num_attention_heads=words["heads"], hidden_act="quick_gelu",
            max_position_embeddings=words["context_length"], projection_dim=model["embed_dim"], eos_token_id=2,
        )
    )  # fmt: skip
    renamed = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.final_layer_norm.weight": state["ln_final.weight"],
        "text_model.final_layer_norm.bias": state["ln_final.bias"],
        "text_projection.weight": state["text_projection"].T,
    }
    for number in range(words["layers"]):
        ours, theirs = f"transformer.resblocks.{number}", f"text_model.encoder.layers.{number}"
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", state[f"{ours}.attn.in_proj_{kind}"].chunk(3), strict=True):
                renamed[f"{theirs}.self_attn.{name}_proj.{kind}"] = part
            for here, there in (
                ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
            ):  # fmt: skip
                renamed[f"{theirs}.{there}.{kind}"] = state[f"{ours}.{here}.{kind}"]
    loaded, info = type(tower).from_pretrained(None, config=tower.config, state_dict=renamed, output_loading_info=True)
    assert not info["missing_keys"]
    ids = [t.AutoTokenizer.from_pretrained(folder)(one, return_tensors="pt")["input_ids"] for one in text]
    embeds: torch.Tensor = torch.cat([loaded.eval()(input_ids=one).text_embeds for one in ids])
    return embeds


def siglip(folder: Path, image: bytes, text: list[str]) -> dict[str, Any]:
    ids = tokens(folder, text, padding="max_length")["input_ids"]
    result = network(folder)(pixel_values=pixels(folder, image), input_ids=ids)
    return _ranked(text, result.logits_per_image[0].sigmoid())


def clap(folder: Path, audio: bytes, text: list[str]) -> dict[str, Any]:
    result = network(folder)(**sound(folder, audio), **tokens(folder, text, padding=True))
    return _ranked(text, result.logits_per_audio[0].softmax(-1))


def encoder_decoder(folder: Path, image: bytes) -> dict[str, Any]:
    ids = network(folder).generate(pixels(folder, image), max_new_tokens=LONGEST, do_sample=False, num_beams=1)
    return {"text": said(folder, ids[0]), "finished": finished(folder, ids[0].tolist()[1:])}


def blip(folder: Path, image: bytes, text: str | None = None) -> dict[str, Any]:
    question = {} if text is None else tokens(folder, [text])
    given = {name: question[name] for name in ("input_ids", "attention_mask") if name in question}
    ids = network(folder).generate(
        pixel_values=pixels(folder, image), **given, max_new_tokens=LONGEST, do_sample=False, num_beams=1
    )
    return {"text": said(folder, ids[0]), "finished": finished(folder, ids[0].tolist()[1:])}


def llava(folder: Path, image: bytes, text: str) -> dict[str, Any]:
    picture = pixels(folder, image)
    config = network(folder).config.vision_config
    count = (config.image_size // config.patch_size) ** 2
    prompt = tokens(folder, [f"USER: {'<image> ' * count}\n{text} ASSISTANT:"])["input_ids"]
    ids = network(folder).generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), pixel_values=picture, max_new_tokens=LONGEST,
        do_sample=False,
    )  # fmt: skip
    new = ids[0, prompt.shape[1] :]
    return {"text": said(folder, new), "finished": finished(folder, new.tolist())}


def whisper(folder: Path, audio: bytes) -> dict[str, Any]:
    ids = network(folder).generate(
        sound(folder, audio).input_features, max_new_tokens=LONGEST, do_sample=False, num_beams=1
    )
    new = ids[0].tolist()[1:] if ids[0, 0] == network(folder).config.decoder_start_token_id else ids[0].tolist()
    outputs = {"text": said(folder, ids[0]), "finished": finished(folder, new)}
    return {**outputs, "language": "", "segments": []}  # English-only, no times asked for


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
