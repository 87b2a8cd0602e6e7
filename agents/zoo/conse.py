"""ConSE: which text fits a picture, and which picture a text, through the names of the classes it looks like. numpy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from s2m3.agents.modules.ports import Config, port, read_config, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, softmax, unit
from s2m3.agents.zoo.shipped_weights import read_weights
from s2m3.agents.zoo.widths import CLASSES, EMBEDDING
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.wire.values import Value

__all__ = ["Conse", "load_conse"]


class ConseConfig(Config):
    """How many of the likeliest classes make the picture's vector, and how flat their weights are."""

    top: int = Field(ge=1, le=CLASSES)
    temperature: float = Field(gt=0)


@dataclass(frozen=True)
class Pair:
    """Pictures and texts to compare: class logits (pictures, 1000), unit embeddings (texts, 384), the texts."""

    logits: Floats
    embedding: Floats
    texts: list[str]


class Conse:
    """Class `conse`: a picture is the mean of its likely classes' name embeddings, weighted by probability.

    Convex combination of semantic embeddings (Norouzi et al., ICLR 2014): picture and text meet in the text's space
    without joint training. It knows what the 1000 class names span.
    """

    light = True
    max_batch = 8

    def __init__(self, table: Floats, config: ConseConfig) -> None:
        self.table = table
        self._config = config
        self.nbytes = table.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> Pair:
        """Returns the item's logits, embeddings and texts."""
        texts = port(inputs, "text", "texts")
        embedding = tensor_port(inputs, "embedding", (len(texts), EMBEDDING))
        return Pair(tensor_port(inputs, "logits", (None, CLASSES)), unit(embedding), texts)

    def run(self, batch: Sequence[Pair], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns, for each item, the wanted outputs.

        `label`, `score` (cosine) and `ranking` put all texts in order for picture 0; `picture` (a number from 0) and
        `pictures` put the pictures in order for text 0; `text` is the texts again.
        """
        return [self._outputs(item, wanted) for item in batch]

    def vectors(self, logits: Floats) -> Floats:
        """Returns logits (pictures, 1000) as unit vectors (pictures, 384) in the space of the class names."""
        probabilities = softmax(logits / np.float32(self._config.temperature))
        likely = np.argpartition(-probabilities, self._config.top - 1, axis=-1)[:, : self._config.top]
        weights = np.take_along_axis(probabilities, likely, axis=-1)
        return unit(np.einsum("pk,pkd->pd", weights, self.table[likely]))

    def _outputs(self, item: Pair, wanted: frozenset[str]) -> dict[str, Value]:
        scores = item.embedding @ self.vectors(item.logits).T  # (texts, pictures)
        pictures = ranked("picture", range(scores.shape[1]), scores[0])
        outputs = {"picture": pictures[0]["picture"], "pictures": pictures, "text": item.texts}
        outputs |= answer_of(ranked("label", item.texts, scores[:, 0]), wanted)
        return {name: value for name, value in outputs.items() if name in wanted}


def load_conse(spec: ModuleSpec) -> Conse:
    """Builds class `conse` on the table of class names that comes with this package.

    Raises:
        ModuleFailedError: The table is missing or of another shape.
    """
    config = read_config(spec, ConseConfig)
    return Conse(unit(read_weights(spec, {"names": (CLASSES, EMBEDDING)})["names"]), config)
