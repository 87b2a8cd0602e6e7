"""Networks run by torch, behind the same call as those of ONNX Runtime."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.runtimes.network import Array

__all__ = ["TorchNetwork"]


class TorchNetwork:
    """A network of torch.

    Args:
        module: Its `forward` takes the inputs by name and returns a tensor, or a tuple of tensors.
        inputs: Names of the inputs, in the order of `forward`.
        outputs: Names of the outputs, in their order.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.module = module.eval()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.takes = frozenset(inputs)
        self.nbytes = nbytes_of(module)

    def __call__(self, **inputs: Array) -> list[Array]:
        """Computes all outputs of one batch."""
        return self.some(self.outputs, **inputs)

    @torch.inference_mode()
    def some(self, names: Sequence[str], **inputs: Array) -> list[Array]:
        """Computes all outputs of one batch; returns the named ones, in the order of the names."""
        found = self.module(*self.tensors(inputs))
        tensors = dict(zip(self.outputs, found if isinstance(found, tuple) else (found,), strict=True))
        return [tensors[name].numpy() for name in names]

    def tensors(self, inputs: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
        """Returns the inputs in the order of `forward`, the arrays' own memory where they can be written to."""
        arrays = (inputs[name] for name in self.inputs)
        return tuple(torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays)
