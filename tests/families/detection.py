"""The rows of detectors: boxes of the checkpoint's own classes, and of the labels that come with a request."""

import io
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers as t
from PIL import Image

from tests.families.family import Family
from tests.zoo.samples import sample

__all__ = ["DETECTION", "LABELS", "save"]

LABELS: dict[str, Any] = {"id2label": {0: "cat", 1: "dog", 2: "cup"}, "label2id": {"cat": 0, "dog": 1, "cup": 2}}
_PICTURES = ("chelsea.jpg", "coffee.jpg")
_RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_DETR = {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 6}
_DETR |= {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
_RT: dict[str, Any] = {
    "encoder_hidden_dim": 32,
    "d_model": 32,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 6,
}
_RT |= {"encoder_in_channels": [12, 16, 20], "decoder_in_channels": [32, 32, 32], "decoder_layers": 2}
_RT |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_denoising": 0, "hidden_expansion": 0.5}
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def _sized(folder: Path, kind: str, **size: Any) -> None:
    """The processor of a checkpoint, under the name that published ones have, at a size that is quick."""
    getattr(t, f"{kind}Pil")(**size).save_pretrained(folder)


def save(network: Any, folder: Path, surer: Any = None, *, seed: int = 1) -> None:
    """Saves a network with random weights whose outputs depend on the picture through all layers.

    Args:
        network: The whole network.
        folder: The checkpoint.
        surer: The layer that says the classes, where its scores would all be near one half.
        seed: Of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            is_scale = weight.dim() == 1 and name.endswith("weight")
            deviation = 1.4 / float(weight[0].numel()) ** 0.5 if weight.dim() > 1 else 0.2
            weight.normal_(float(is_scale), deviation, generator=generator)
        if surer is not None:
            surer.weight *= 4
    network.eval().save_pretrained(folder)


def _detr(folder: Path) -> None:
    backbone = t.ResNetConfig(**_RESNET, out_features=["stage4"])
    network = t.DetrForObjectDetection(t.DetrConfig(backbone_config=backbone, **_DETR, **LABELS))
    save(network, folder, network.class_labels_classifier)
    _sized(folder, "DetrImageProcessor", size={"shortest_edge": 64, "longest_edge": 96})


def _rt_detr(folder: Path) -> None:
    backbone = t.RTDetrResNetConfig(**_RESNET, out_features=["stage2", "stage3", "stage4"])
    save(t.RTDetrForObjectDetection(t.RTDetrConfig(backbone_config=backbone, **_RT, **LABELS)), folder)
    _sized(folder, "RTDetrImageProcessor", size={"height": 64, "width": 64})


def _rt_detr_v2(folder: Path) -> None:
    backbone = t.RTDetrResNetConfig(**_RESNET, out_features=["stage2", "stage3", "stage4"])
    save(t.RTDetrV2ForObjectDetection(t.RTDetrV2Config(backbone_config=backbone, **_RT, **LABELS)), folder)
    _sized(folder, "RTDetrImageProcessor", size={"height": 64, "width": 64})


def _d_fine(folder: Path) -> None:
    backbone = t.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 12, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 12, 16, 20],
        stage_num_blocks=[1, 1, 1, 1],
        hidden_sizes=[8, 12, 16, 20],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    save(t.DFineForObjectDetection(t.DFineConfig(backbone_config=backbone, **_RT, **LABELS)), folder)
    _sized(folder, "RTDetrImageProcessor", size={"height": 64, "width": 64}, do_normalize=False)


def _yolos(folder: Path) -> None:
    config = t.YolosConfig(**_TOWER, image_size=[64, 96], patch_size=16, num_detection_tokens=6, **LABELS)
    network = t.YolosForObjectDetection(config)
    save(network, folder, network.class_labels_classifier.layers[-1])
    _sized(folder, "YolosImageProcessor", size={"shortest_edge": 64, "longest_edge": 96})


@cache
def _network(folder: Path) -> tuple[Any, Any]:
    return t.AutoImageProcessor.from_pretrained(folder), t.AutoModelForObjectDetection.from_pretrained(folder).eval()


def _detected(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """The lines of the cards of DETR, RT-DETR, D-FINE and YOLOS."""
    processor, network = _network(folder)
    picture = Image.open(io.BytesIO(inputs["image"])).convert("RGB")
    outputs = network(**processor(images=picture, return_tensors="pt"))
    sizes = torch.tensor([picture.size[::-1]])
    found = processor.post_process_object_detection(outputs, target_sizes=sizes, threshold=0.5)[0]
    names = [network.config.id2label[label.item()] for label in found["labels"]]
    return _answer(names, found["scores"].tolist(), found["boxes"].tolist())


def _answer(labels: list[str], scores: list[float], corners: list[list[float]]) -> dict[str, Any]:
    boxes = [
        {"label": label, "score": score, "box": box} for label, score, box in zip(labels, scores, corners, strict=True)
    ]
    boxes.sort(key=lambda box: -float(box["score"]))  # type: ignore[arg-type]
    return {"boxes": boxes, "label": boxes[0]["label"], "score": boxes[0]["score"]}


def _owl(folder: Path, network: str) -> None:
    words = {**_TOWER, "vocab_size": len(_clip_vocabulary()), "max_position_embeddings": 16}
    words |= {"bos_token_id": len(_clip_vocabulary()) - 2, "eos_token_id": len(_clip_vocabulary()) - 1}
    towers = {"text_config": words, "vision_config": {**_TOWER, "image_size": 64, "patch_size": 16}}
    config = getattr(t, f"{network}Config")(**towers, projection_dim=32)
    save(getattr(t, f"{network}ForObjectDetection")(config), folder)
    _sized(folder, f"{network}ImageProcessor", size={"height": 64, "width": 64})
    words_of = t.CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], pad_token="!", model_max_length=16)  # noqa: S106
    words_of.save_pretrained(folder)


def _clip_vocabulary() -> dict[str, int]:
    """Letters in the middle of a word and at its end, as CLIP's byte pairs have them; the end mark is the largest."""
    letters = ["!", *"abcdefghijklmnopqrstuvwxyz"]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {name: number for number, name in enumerate(names)}


#: Ids of BERT's uncased vocabulary that Grounding DINO's class counts on.
_BERT = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


def _grounding_dino(folder: Path) -> None:
    backbone = t.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    words = t.BertConfig(vocab_size=len(_bert_vocabulary()), max_position_embeddings=64, **_TOWER)
    config = t.GroundingDinoConfig(
        backbone_config=backbone, text_config=words, max_text_len=32, decoder_n_points=2, encoder_n_points=2, **_DETR
    )
    save(t.GroundingDinoForObjectDetection(config), folder, seed=3)
    _sized(folder, "GroundingDinoImageProcessor", size={"shortest_edge": 96, "longest_edge": 128})
    t.BertTokenizer(vocab=_bert_vocabulary(), model_max_length=64).save_pretrained(folder)


def _bert_vocabulary() -> dict[str, int]:
    unused = iter(range(2_000))
    numbered = {number: name for name, number in _BERT.items()}
    words = iter(["a", "cat", "dog", "red", "cup", "nose", "##s"])
    return {
        numbered.get(number) or (next(words) if number >= 1030 else f"[unused{next(unused)}]"): number
        for number in range(1037)
    }


@cache
def _zero_shot(folder: Path) -> tuple[Any, Any]:
    return t.AutoProcessor.from_pretrained(folder), t.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()


def _asked(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """The lines of the cards of OWLv2 and Grounding DINO, with the thresholds of their processors."""
    processor, network = _zero_shot(folder)
    picture = Image.open(io.BytesIO(inputs["image"])).convert("RGB")
    texts = [inputs["text"]]
    outputs = network(**processor(text=texts, images=picture, return_tensors="pt"))
    found = processor.post_process_grounded_object_detection(
        outputs=outputs, target_sizes=torch.tensor([(picture.height, picture.width)]), text_labels=texts
    )[0]
    return _answer(found["text_labels"], found["scores"].tolist(), found["boxes"].tolist())


def _of(name: str, make: Callable[[Path], None]) -> Family:
    asks = [{"image": sample(picture)} for picture in _PICTURES]
    return Family(name, "detection", make, asks, _detected)


def _zero_shot_of(name: str, make: Callable[[Path], None]) -> Family:
    asks = [
        {"image": sample(_PICTURES[0]), "text": ["a cat", "a red cup"]},
        {"image": sample(_PICTURES[1]), "text": ["dogs"]},
    ]
    return Family(name, "detection", make, asks, _asked)


DETECTION = [
    _of("detr", _detr),
    _of("rt-detr", _rt_detr),
    _of("rt-detr-v2", _rt_detr_v2),
    _of("d-fine", _d_fine),
    _of("yolos", _yolos),
    _zero_shot_of("owlv2", partial(_owl, network="Owlv2")),
    _zero_shot_of("owlvit", partial(_owl, network="OwlViT")),
    _zero_shot_of("grounding-dino", _grounding_dino),
]
