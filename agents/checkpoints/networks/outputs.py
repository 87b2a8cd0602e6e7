"""What a network's result gives for the outputs that were asked for, as the table of architectures says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["Asked", "asked_outputs", "needs_layers", "take", "tensors_of"]

_SKIPPED = {"default": 1, "full": 0}


@dataclass(frozen=True, slots=True)
class Asked:
    """One output: a field of the result, one layer of it where it has several, without its first tokens."""

    field: str
    layer: int | None
    skip: int


def asked_outputs(opened: CheckpointPart) -> dict[str, Asked]:
    """Returns the outputs that are tensors of the network's result.

    Raises:
        ModuleFailedError: The checkpoint asks for several layers at once, or for tokens in an unknown way.
    """
    found = {}
    for name, output in opened.part.outputs.items():
        if not output.field or output.field == "input":
            continue
        layer = (opened.value(output.layer_key) if output.layer_key else None) or output.layer
        how = opened.value(output.skip_key) if output.skip_key else None
        skip = output.skip if how is None else _SKIPPED.get(str(how))
        if skip is None or isinstance(layer, list):
            raise ModuleFailedError(
                f"module {opened.spec.id}: {output.layer_key} {layer!r} with {output.skip_key} {how!r} is not supported"
            )
        found[name] = Asked(output.field, layer if isinstance(layer, int) else None, skip)
    return found


def needs_layers(asked: Mapping[str, Asked], wanted: Iterable[str]) -> bool:
    """Returns whether any wanted output needs all layers' hidden states: they are kept only then."""
    return any(asked[name].layer is not None for name in wanted if name in asked)


def take(asked: Mapping[str, Asked], result: Any, wanted: Iterable[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the wanted outputs of a network's result, float32, one row per item of the batch."""
    return {name: found.float().numpy() for name, found in tensors_of(asked, result, wanted).items()}


def tensors_of(asked: Mapping[str, Asked], result: Any, wanted: Iterable[str]) -> dict[str, Any]:
    """Returns the wanted outputs of a network's result as they are, one row per item of the batch."""
    found = {}
    for name in wanted:
        if name in asked:
            tensor = getattr(result, asked[name].field)
            layer = asked[name].layer
            tensor = tensor if layer is None else tensor[layer]
            found[name] = tensor[:, asked[name].skip :] if asked[name].skip else tensor
    return found
