"""Heads of checkpoints that are a few numbers: cosine or sigmoid similarity, and classifiers. numpy alone, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from s2m3.agents.checkpoints.labels import Labels, read_labels
from s2m3.agents.checkpoints.storage.part import CheckpointPart, read_floats
from s2m3.agents.modules.ports import port, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, sigmoid, softmax, unit
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["Classifier", "Similarity", "load_classifier", "load_similarity"]

#: A head above this many bytes takes long enough to be run in the worker's thread.
_LIGHT_BYTES = 10_000_000


@dataclass(frozen=True)
class _Match:
    query: Floats
    candidates: Floats
    texts: list[str]


class Similarity:
    """Class `similarity-head`: how well each text fits, by its embedding: `query` (1, d), `candidates` (texts, d)."""

    light = True
    max_batch = 8

    def __init__(self, scale: float, bias: float, squash: Literal["softmax", "sigmoid"]) -> None:
        self._scale, self._bias, self._squash = float(np.exp(scale)), bias, squash
        self.nbytes = 8

    def prepare(self, inputs: Mapping[str, Value]) -> _Match:
        """Returns the item's vectors at length 1, and the texts."""
        texts = port(inputs, "text", "texts")
        query = tensor_port(inputs, "query", (1, None))
        return _Match(unit(query), unit(tensor_port(inputs, "candidates", (len(texts), query.shape[1]))), texts)

    def run(self, batch: Sequence[_Match], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `label`, `score` (a probability), `ranking` (all texts) and `logits` (1, texts) of each item."""
        return [self._answer(item, wanted) for item in batch]

    def _answer(self, item: _Match, wanted: frozenset[str]) -> dict[str, Value]:
        logits = np.asarray(item.query @ item.candidates.T * self._scale + self._bias, dtype=np.float32)
        scores = softmax(logits[0]) if self._squash == "softmax" else sigmoid(logits[0])
        answer = answer_of(ranked("label", item.texts, scores), wanted)
        return answer | ({"logits": logits} if "logits" in wanted else {})


class Classifier:
    """Class `classifier-head`: features to labels, by one linear layer or several with a ReLU between.

    Several inputs are joined in the order of their names.
    """

    max_batch = 8

    def __init__(self, layers: Sequence[tuple[Floats, Floats]], labels: Labels, ports: Sequence[str]) -> None:
        self._layers, self._labels, self._ports = layers, labels, sorted(ports)
        self.nbytes = sum(weight.nbytes + bias.nbytes for weight, bias in layers)
        self.light = self.nbytes < _LIGHT_BYTES

    def prepare(self, inputs: Mapping[str, Value]) -> Floats:
        """Returns the item's features, (1, width)."""
        parts = [tensor_port(inputs, name, (1, None)) for name in self._ports]
        joined: Floats = np.concatenate(parts, axis=1)
        tensor_port({"features": joined}, "features", (1, self._layers[0][0].shape[1]))
        return joined

    def run(self, batch: Sequence[Floats], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item; see Labels.answer."""
        x = np.concatenate(batch)
        for number, (weight, bias) in enumerate(self._layers):
            x = x @ weight.T + bias
            x = x if number == len(self._layers) - 1 else np.maximum(x, 0)
        return [self._labels.answer(logits[None], wanted) for logits in x]


def load_similarity(opened: CheckpointPart) -> Similarity:
    """Builds class `similarity-head`.

    Raises:
        ModuleFailedError: The scale is missing.
    """
    given = {name: float(read_floats(tensor).reshape(-1)[0]) for name, tensor in opened.tensors().items()}
    if "scale" not in given:
        raise ModuleFailedError(f"the weights of {opened.spec.id} do not fit: missing: the scale")
    squash: Literal["softmax", "sigmoid"] = "sigmoid" if opened.option("squash") == "sigmoid" else "softmax"
    return Similarity(given["scale"], given.get("bias", 0.0), squash)


def load_classifier(opened: CheckpointPart) -> Classifier:
    """Builds class `classifier-head`: `weight` and `bias`, or `0.weight`, `0.bias` and so on.

    Raises:
        ModuleFailedError: The layers are not linear, do not fit together, or are not as many as the labels; or
            config.json has an unknown problem_type.
    """
    tensors = opened.tensors()
    stems = sorted({name.rpartition(".")[0] for name in tensors}, key=lambda stem: (len(stem), stem))
    layers = []
    for stem in stems:
        dot = "." if stem else ""
        weight, bias = tensors.get(f"{stem}{dot}weight"), tensors.get(f"{stem}{dot}bias")
        if weight is None or len(weight.shape) != 2:  # noqa: PLR2004 - a matrix
            raise ModuleFailedError(
                f"the head {opened.spec.id} is not made of linear layers: {', '.join(tensors)}"[:300]
            )
        layers.append((read_floats(weight), read_floats(bias) if bias else np.zeros(weight.shape[0], np.float32)))
    for (before, _), (after, _) in pairwise(layers):
        if before.shape[0] != after.shape[1]:
            raise ModuleFailedError(f"the layers of {opened.spec.id} do not fit together")
    return Classifier(layers, read_labels(opened, layers[-1][0].shape[0]), list(opened.spec.inputs))
