"""Classes `object-detector` and `zero-shot-object-detector`: what is where in a picture, by a whole network.

Zero-shot is transformers' word for detectors whose labels are texts of the request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image

from s2m3.agents.checkpoints.multimodal.processor import build_processor
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.pictures.reading import Size, prepared, read_picture
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor, read_tokenizer
from s2m3.agents.modules.boxes import box_outputs
from s2m3.agents.modules.ports import port, texts_port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["ObjectDetector", "detector_of", "load_object_detector", "load_zero_shot_detector", "threshold_of"]

#: Least score of a box where the module's configuration names none: that of transformers' object-detection pipeline.
_THRESHOLD = 0.5
#: Pixels per side of what a processor makes of a picture: a patch, of less nothing is left behind the first layer.
_LEAST = 16


@dataclass(frozen=True)
class _Item:
    """What the network takes (one picture), the labels that were asked for, and (height, width) of the picture sent."""

    inputs: dict[str, Any]
    labels: list[str]
    size: Size


class _Preprocessing(Protocol):
    """How a detector's inputs are made, and boxes of its results."""

    def labels(self, inputs: Mapping[str, Value]) -> list[str]:
        """Returns the labels that a request asks for; none where the network has its own."""

    def read(self, picture: Image.Image, labels: list[str]) -> dict[str, Any]:
        """Returns the network's inputs."""

    def found(self, result: Any, item: _Item) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Returns transformers' `scores` and `boxes`, and the label of each box."""


class ObjectDetector:
    """`image` (one picture, and `text`: the labels of a zero-shot detector) to `boxes`, best first, `label`, `score`.

    Each picture runs alone: detectors pad the pictures of a batch to one size, which changes what they find.
    """

    light = False
    max_batch = 1
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Any, preprocessing: _Preprocessing) -> None:
        self._network = network
        self._preprocessing = preprocessing
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's pixels and labels as the network takes them."""
        labels = self._preprocessing.labels(inputs)
        picture, (height, width) = read_picture(port(inputs, "image", "image"))
        found = prepared(self._preprocessing.read, picture, labels)
        if min(found["pixel_values"].shape[-2:]) < _LEAST:
            raise BadInputError(
                f"the picture of {width} x {height} pixels is too thin: prepared, one side is below {_LEAST}"
            )
        return _Item(found, labels, (height, width))

    @torch.inference_mode()
    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item: without any box, `label` is empty and `score` 0."""
        results = []
        for item in batch:
            between_slices()
            found, labels = self._preprocessing.found(self._network(**item.inputs), item)
            results.append(_answer(found, labels, wanted))
        return results


def _answer(found: Mapping[str, Any], labels: Sequence[str], wanted: frozenset[str]) -> dict[str, Value]:
    scores, corners = found["scores"].float(), found["boxes"].float()
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    found_labels = [labels[i] for i in order]
    return box_outputs(found_labels, scores[order].tolist(), corners[order].tolist(), wanted)


class _OwnLabels:
    """A detector of the checkpoint's own classes, as transformers' object-detection pipeline runs one."""

    def __init__(self, processor: Any, labels: Mapping[int, str], threshold: float) -> None:
        self._processor = processor
        self._names = labels
        self._threshold = threshold

    def labels(self, inputs: Mapping[str, Value]) -> list[str]:  # noqa: ARG002  # the request names none
        return []

    def read(self, picture: Image.Image, labels: list[str]) -> dict[str, Any]:  # noqa: ARG002  # as above
        return dict(self._processor(images=[picture], return_tensors="pt"))

    def found(self, result: Any, item: _Item) -> tuple[Mapping[str, Any], Sequence[str]]:
        (boxes,) = self._processor.post_process_object_detection(result, self._threshold, torch.tensor([item.size]))
        return boxes, [self._names[number] for number in boxes["labels"].tolist()]


class _AskedLabels:
    """A detector of the request's labels, as the model cards of OWLv2 and Grounding DINO run one.

    Args:
        processor: Of pictures and texts together.
        longest: Tokens that fit: of one label, or of all together where they are joined.
        joined: Whether the labels become one text, in which each ends with a full stop.
        thresholds: `threshold` and `text_threshold` that the module sets; the processor's own count for the others.
    """

    def __init__(self, processor: Any, longest: int, thresholds: Mapping[str, float], *, joined: bool) -> None:
        self._processor = processor
        self._longest = longest
        self._thresholds = thresholds
        self._joined = joined

    def labels(self, inputs: Mapping[str, Value]) -> list[str]:
        texts = texts_port(inputs, "text")
        if self._joined and len(texts) > 1 and (dotted := [text for text in texts if "." in text]):
            raise BadInputError(f"the label {dotted[0][:60]!r} has a full stop, which separates labels")
        if not all(text.strip() for text in texts):
            raise BadInputError("a label without a character")
        return texts

    def read(self, picture: Image.Image, labels: list[str]) -> dict[str, Any]:
        """Returns the network's inputs; one text with full stops is the whole prompt, as it is written on the cards."""
        is_prompt = self._joined and any("." in label for label in labels)
        texts = labels if is_prompt else [labels]
        if not self._joined:
            self._check(max(map(len, self._processor.tokenizer(labels)["input_ids"])), "a label takes")
        found = dict(self._processor(images=[picture], text=texts, return_tensors="pt"))
        if self._joined:
            self._check(found["input_ids"].shape[1], "the labels take together")
        return found

    def _check(self, tokens: int, what: str) -> None:
        if tokens > self._longest:
            raise BadInputError(f"{what} {tokens} tokens; at most {self._longest}")

    def found(self, result: Any, item: _Item) -> tuple[Mapping[str, Any], Sequence[str]]:
        (boxes,) = self._processor.post_process_grounded_object_detection(
            outputs=result, target_sizes=torch.tensor([item.size]), text_labels=[item.labels], **self._thresholds
        )
        return boxes, boxes["text_labels"]


def _threshold(opened: CheckpointPart, name: str) -> dict[str, float]:
    found = opened.option(name)
    if found is None:
        return {}
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found <= 1:
        raise ModuleFailedError(f"module {opened.spec.id}: config.{name}: {found!r} is no number from 0 to 1")
    return {name: float(found)}


def threshold_of(opened: CheckpointPart) -> float:
    """Returns the least score of a box of a detector of its own classes.

    Raises:
        ModuleFailedError: `threshold` of the module's configuration is no number from 0 to 1.
    """
    return _threshold(opened, "threshold").get("threshold", _THRESHOLD)


def detector_of(network: Any, processor: Any, threshold: float) -> ObjectDetector:
    """Returns a detector of its own classes: transformers' network and image processor, and the least score."""
    return ObjectDetector(network, _OwnLabels(processor, network.config.id2label, threshold))


def load_object_detector(opened: CheckpointPart) -> ObjectDetector:
    """Builds class `object-detector`; `threshold` of the module's configuration is the least score of a box [0.5].

    Raises:
        ModuleFailedError: Weights, preprocessing or the threshold do not fit; the text names them.
    """
    threshold = threshold_of(opened)
    return detector_of(build_network(opened), read_image_processor(opened), threshold)


def load_zero_shot_detector(opened: CheckpointPart) -> ObjectDetector:
    """Builds class `zero-shot-object-detector`.

    `threshold` and, where the labels are joined, `text_threshold` of the module's configuration are the least scores;
    without them those of the checkpoint's processor count (0.1 of OWLv2, 0.25 of Grounding DINO).

    Raises:
        ModuleFailedError: Weights, preprocessing, tokenizer or a threshold do not fit; the text names them.
    """
    joined = opened.option("joined") is True
    thresholds = _threshold(opened, "threshold") | (_threshold(opened, "text_threshold") if joined else {})
    processor = build_processor(opened, read_tokenizer(opened))
    network = build_network(opened)
    longest = int(network.config.text_config.max_position_embeddings)
    if joined:
        longest = min(longest, int(network.config.max_text_len))
    return ObjectDetector(network, _AskedLabels(processor, longest, thresholds, joined=joined))
