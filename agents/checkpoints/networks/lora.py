"""LoRA adapters (Hu et al., 2022) in PEFT's format, beside the linear layers of a base that stays as it is.

The base's tensors are not changed, so that they are in memory once with those of the base itself and of its other
adapters.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from s2m3.agents.modules.state_dicts import read_safetensors
from s2m3.schemas.checkpoints.adapters import ADAPTER_WEIGHTS, adapter_scale, read_adapter_config
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["apply_adapter"]

_START, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


class LoraLinear(nn.Module):
    """A linear layer, and the two small matrices that are added to it.

    Args:
        base: The layer.
        down: (rank, inputs).
        up: (outputs, rank).
        scale: What their product is multiplied with.
    """

    def __init__(self, base: nn.Module, down: torch.Tensor, up: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.scale = scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the layer's output with the adapter's added."""
        result: torch.Tensor = self.base(inputs)
        added = nn.functional.linear(nn.functional.linear(inputs.to(self.down.dtype), self.down), self.up)
        return result + (added * self.scale).to(result.dtype)


def apply_adapter(network: Any, folder: Path) -> None:
    """Puts an adapter beside the linear layers of a network.

    Args:
        network: The base, as transformers builds it.
        folder: The adapter's.

    Raises:
        ModuleFailedError: The adapter is not read, or does not fit the base; the text names the layer.
    """
    try:
        config = read_adapter_config(folder)
    except BadInputError as error:
        raise ModuleFailedError(error.detail) from error
    tensors = read_safetensors(folder / ADAPTER_WEIGHTS, lambda _: True)
    layers = {name.removeprefix(_START).removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)}
    wanted = {f"{_START}{layer}{end}" for layer in layers for end in (_DOWN, _UP)}
    if not layers or (odd := tensors.keys() ^ wanted):
        what = min(odd)[:100] if layers else "no matrices"
        raise ModuleFailedError(f"the adapter {folder.name} does not hold two matrices for each layer: {what}")
    modules = dict(network.named_modules())
    for layer in sorted(layers):
        down, up = (tensors[f"{_START}{layer}{end}"].to(network.dtype) for end in (_DOWN, _UP))
        base = modules.get(layer)
        if base is None or _shape(base) != (up.shape[0], down.shape[1]):
            raise ModuleFailedError(f"the adapter {folder.name} does not fit its base at {layer}")
        parent, _, name = layer.rpartition(".")
        setattr(modules[parent], name, LoraLinear(base, down, up, adapter_scale(config, layer, down.shape[0])))


def _shape(layer: nn.Module) -> tuple[int, ...] | None:
    """Returns outputs and inputs of a linear layer; GPT-2's, by another name, has its matrix turned."""
    weight = getattr(layer, "weight", None)
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if type(layer).__name__ == "Conv1D" and weight is not None:
        return weight.shape[1], weight.shape[0]
    return None
