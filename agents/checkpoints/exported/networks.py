"""What a part's network becomes for an export: called by position, its result a tuple. Needs torch."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import nn

from s2m3.agents.checkpoints.networks.outputs import Asked, needs_layers, tensors_of
from s2m3.agents.runtimes.torch import TorchNetwork

__all__ = ["output_network", "samples"]

_HEADS = ("num_attention_heads", "num_key_value_heads")


class _Outputs(nn.Module):
    """A network whose result is the tuple of the outputs that are asked for."""

    def __init__(self, network: nn.Module, inputs: Sequence[str], asked: Mapping[str, Asked]) -> None:
        super().__init__()
        self.network = network
        self._inputs, self._asked = tuple(inputs), dict(asked)
        self._layers = {"output_hidden_states": True} if needs_layers(self._asked, self._asked) else {}

    def forward(self, *given: torch.Tensor) -> tuple[Any, ...]:
        """Returns the outputs in their order."""
        result = self.network(**dict(zip(self._inputs, given, strict=True)), **self._layers)
        return tuple(tensors_of(self._asked, result, self._asked).values())


def output_network(network: nn.Module, inputs: Sequence[str], asked: Mapping[str, Asked]) -> TorchNetwork:
    """Returns a part's network as one that is exported; attention whose heads share keys is computed step by step.

    Args:
        network: The part's.
        inputs: The names of its arguments.
        asked: Name of an output -> which field of the result it is.
    """
    inner: Any
    for inner in network.modules():
        config = getattr(inner, "config", None)
        shared = getattr(config, "num_key_value_heads", None) not in (
            None,
            getattr(config, "num_attention_heads", None),
        )
        if shared and hasattr(inner, "set_attn_implementation"):
            inner.set_attn_implementation("eager")  # torch.onnx has no fused attention of that kind
    return TorchNetwork(_Outputs(network, inputs, asked), inputs, list(asked))


def samples(*names: str) -> list[bytes]:
    """Returns files of the pictures and sounds that come with this package."""
    folder = files("s2m3").joinpath("samples")
    return [folder.joinpath(name).read_bytes() for name in names]
