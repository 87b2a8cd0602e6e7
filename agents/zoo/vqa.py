"""A head that answers questions about pictures: features and a question's embedding to one of a few answers. numpy.

Trained on easy-vqa (train_vqa.py): it is honest only about that set's synthetic pictures of one coloured shape.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from s2m3.agents.modules.ports import Config, read_config, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, softmax
from s2m3.agents.zoo.shipped_weights import read_weights
from s2m3.agents.zoo.widths import EMBEDDING
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.wire.values import Value

__all__ = ["ANSWERS", "FEATURES", "LAYERS", "AnswerHead", "load_head"]

#: Length of a picture's features.
FEATURES = 1280
#: Every answer of easy-vqa, in the order of the logits.
ANSWERS = (
    "black",
    "blue",
    "brown",
    "circle",
    "gray",
    "green",
    "no",
    "rectangle",
    "red",
    "teal",
    "triangle",
    "yellow",
    "yes",
)
#: Widths from the input (features and embedding side by side) to the logits.
LAYERS = (FEATURES + EMBEDDING, 352, 160, len(ANSWERS))
_TOP = 5


class AnswerHead:
    """Class `vqa-mlp`: `features` (1, 1280) and `embedding` (1, 384) to the five likeliest answers.

    A perceptron with two hidden layers of ReLU.
    """

    light = True
    max_batch = 8

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self._layers = [(weights[f"{n}.weight"].T, weights[f"{n}.bias"]) for n in range(len(LAYERS) - 1)]
        self.nbytes = sum(weight.nbytes for weight in weights.values())

    def prepare(self, inputs: Mapping[str, Value]) -> Floats:
        """Returns the network's input (1664,): one picture's features, then one question's embedding."""
        features = tensor_port(inputs, "features", (1, FEATURES))
        return np.concatenate([features[0], tensor_port(inputs, "embedding", (1, EMBEDDING))[0]])

    def run(self, batch: Sequence[Floats], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `label`, `score` (probability) and `ranking` of each item, as wanted."""
        x = np.stack(batch)
        for weight, bias in self._layers[:-1]:
            x = np.maximum(x @ weight + bias, 0)
        weight, bias = self._layers[-1]
        return [answer_of(ranked("label", ANSWERS, row, _TOP), wanted) for row in softmax(x @ weight + bias)]


def load_head(spec: ModuleSpec) -> AnswerHead:
    """Builds class `vqa-mlp` on the weights that come with this package.

    Raises:
        ModuleFailedError: The weights are missing or of another shape.
    """
    read_config(spec, Config)
    shapes: dict[str, tuple[int, ...]] = {}
    for n, (inside, outside) in enumerate(pairwise(LAYERS)):
        shapes |= {f"{n}.weight": (outside, inside), f"{n}.bias": (outside,)}
    return AnswerHead(read_weights(spec, shapes))
