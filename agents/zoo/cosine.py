"""What heads answer with (probabilities, unit vectors, rankings), and the cosine head. numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from s2m3.agents.zoo.ports import Config, port, read_config, tensor_port
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["CLASSES", "EMBEDDING", "Cosine", "Floats", "answer_of", "load_cosine", "ranked", "softmax", "unit"]

Floats = npt.NDArray[np.float32]
#: Length of a MiniLM sentence embedding, and how many ImageNet classes there are.
EMBEDDING, CLASSES = 384, 1000


def softmax(logits: Floats) -> Floats:
    """Returns probabilities over the last dimension."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = e / e.sum(axis=-1, keepdims=True)
    return probabilities


def unit(vectors: Floats) -> Floats:
    """Returns the vectors of the last dimension at length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, 1e-12)
    return scaled


def ranked(name: str, labels: Sequence[Value], scores: Floats, top: int | None = None) -> list[dict[str, Value]]:
    """Returns [{name: label, "score": float}], best first, the first of equals first, at most `top` of them."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [{name: labels[i], "score": float(scores[i])} for i in order]


def answer_of(ranking: list[dict[str, Value]], wanted: frozenset[str]) -> dict[str, Value]:
    """Returns the wanted ones of `label`, `score` and `ranking`."""
    outputs = {"label": ranking[0]["label"], "score": ranking[0]["score"], "ranking": ranking}
    return {name: value for name, value in outputs.items() if name in wanted}


@dataclass(frozen=True)
class Match:
    """One text's embedding (1, 384) and its words; the candidates' embeddings (texts, 384) and their texts."""

    query: Floats
    said: str
    candidates: Floats
    texts: list[str]


class Cosine:
    """Class `cosine`: which candidate text is nearest to one text."""

    nbytes = 0
    light = True
    max_batch = 8

    def prepare(self, inputs: Mapping[str, Value]) -> Match:
        """Returns the item's vectors at length 1, and the texts they stand for."""
        said, texts = port(inputs, "said", "texts"), port(inputs, "text", "texts")
        if len(said) > 1:
            raise BadInputError(f"one text is compared with the candidates, not {len(said)}")
        query = tensor_port(inputs, "query", (1, EMBEDDING))
        candidates = tensor_port(inputs, "candidates", (len(texts), EMBEDDING))
        return Match(unit(query), said[0], unit(candidates), texts)

    def run(self, batch: Sequence[Match], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `label`, `score` (cosine), `ranking` (all candidates) and `said` of each item, as wanted."""
        results = []
        for item in batch:
            outputs = answer_of(ranked("label", item.texts, item.candidates @ item.query[0]), wanted)
            results.append(outputs | ({"said": item.said} if "said" in wanted else {}))
        return results


def load_cosine(spec: ModuleSpec) -> Cosine:
    """Builds class `cosine`, which has no weights."""
    read_config(spec, Config)
    return Cosine()
