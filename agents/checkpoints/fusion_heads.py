"""Heads of checkpoints that are a few numbers: cosine or sigmoid similarity, and classifiers. numpy alone, no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from s2m3.agents.checkpoints.scores import scoring
from s2m3.agents.checkpoints.storage.part import CheckpointPart, read_floats
from s2m3.agents.modules.ports import port, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, sigmoid, softmax, unit
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["Classifier", "Similarity", "labels_of", "load_classifier", "load_similarity"]

#: A head above this many bytes takes long enough to be run in the worker's thread.
_LIGHT_BYTES = 10_000_000
_TOP = 5


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

    Several inputs are joined in the order of their names. `scores` makes scores of logits, (…, classes) each.
    """

    max_batch = 8

    def __init__(
        self,
        layers: Sequence[tuple[Floats, Floats]],
        labels: list[str],
        ports: Sequence[str],
        scores: Callable[[Floats], Floats],
    ) -> None:
        self._layers, self._labels, self._ports, self._scores = layers, labels, sorted(ports), scores
        self.nbytes = sum(weight.nbytes + bias.nbytes for weight, bias in layers)
        self.light = self.nbytes < _LIGHT_BYTES

    def prepare(self, inputs: Mapping[str, Value]) -> Floats:
        """Returns the item's features, (1, width)."""
        parts = [tensor_port(inputs, name, (1, None)) for name in self._ports]
        joined: Floats = np.concatenate(parts, axis=1)
        tensor_port({"features": joined}, "features", (1, self._layers[0][0].shape[1]))
        return joined

    def run(self, batch: Sequence[Floats], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `label`, `score`, `ranking` (the best five) and `logits` of each item; see checkpoints/scores.py."""
        x = np.concatenate(batch)
        for number, (weight, bias) in enumerate(self._layers):
            x = x @ weight.T + bias
            x = x if number == len(self._layers) - 1 else np.maximum(x, 0)
        results = []
        for logits, scores in zip(x, self._scores(x), strict=True):
            answer = answer_of(ranked("label", self._labels, scores, _TOP), wanted)
            results.append(answer | ({"logits": logits[None]} if "logits" in wanted else {}))
        return results


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
    labels = labels_of(opened, layers[-1][0].shape[0])
    return Classifier(layers, labels, list(opened.spec.inputs), scoring(opened, len(labels)))


def labels_of(opened: CheckpointPart, count: int) -> list[str]:
    """Returns the names of a classifier's classes.

    Raises:
        ModuleFailedError: config.json names another number of them.
    """
    table = opened.value("id2label")
    if not isinstance(table, dict):  # transformers writes none for unnamed classes
        return [f"LABEL_{number}" for number in range(count)]
    if sorted(table, key=_number) != [str(number) for number in range(count)]:
        raise ModuleFailedError(f"config.json names {len(table)} classes in id2label; {opened.spec.id} has {count}")
    return [str(table[str(number)]) for number in range(count)]


def _number(key: str) -> int:
    return int(key) if key.isdecimal() else -1
