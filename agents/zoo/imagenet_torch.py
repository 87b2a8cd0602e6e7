"""Modules of class `imagenet-linear` from EfficientNet-Lite's checkpoint, which torch reads."""

import numpy as np
import safetensors.numpy

from s2m3.agents.modules.ports import Config, read_config
from s2m3.agents.modules.state_dicts import read_pth
from s2m3.agents.runtimes.export_plan import Export
from s2m3.agents.zoo.imagenet import FEATURES, ImagenetLinear, class_names
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.agents.zoo.widths import CLASSES
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["export_classifier", "load_classifier"]


def load_classifier(spec: ModuleSpec) -> ImagenetLinear:
    """Builds class `imagenet-linear` from the two tensors of the checkpoint that its prefix names.

    Raises:
        ModuleFailedError: The checkpoint is missing or damaged, or the tensors are not there or of another shape.
    """
    read_config(spec, Config)
    path = wheel_file(spec.source, "models/*.pth")
    state = read_pth(path, lambda key: key.startswith(f"{spec.prefix}."))
    shapes = {key.removeprefix(f"{spec.prefix}."): tuple(tensor.shape) for key, tensor in state.items()}
    if shapes != {"weight": (CLASSES, FEATURES), "bias": (CLASSES,)}:
        raise ModuleFailedError(f"{path.name} holds {shapes} at {spec.prefix}, not a layer {FEATURES} -> {CLASSES}")
    weight, bias = (state[f"{spec.prefix}.{name}"].numpy() for name in ("weight", "bias"))
    return ImagenetLinear(weight, bias, class_names())


def export_classifier(module: ImagenetLinear) -> Export:
    """Returns what goes into the module's exported part: its weights, for numpy."""
    tensors = {"weight": module.weight, "bias": module.bias}
    # safetensors writes the bytes as they lie in memory, in whatever order
    weights = safetensors.numpy.save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    features = np.random.default_rng(0).standard_normal((2, FEATURES), np.float32)
    return Export(
        files={"weights.safetensors": weights},
        notes={"names": list(module.names)},
        items=[{"features": features}],
        wanted=frozenset({"logits", "label"}),
    )
