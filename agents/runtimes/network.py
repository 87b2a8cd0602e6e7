"""A network as module classes see it, whatever runs it: arrays go in by name, arrays come out in a fixed order."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["NUMPY", "ONNX", "RUNTIMES", "TORCH", "Array", "Network", "installed_runtimes"]

Array = npt.NDArray[Any]
#: The runtimes of modules, as profiles and manifests of parts name them, the one that is preferred first.
ONNX, TORCH = "onnx", "torch"
RUNTIMES = (ONNX, TORCH)
#: What runs a module that has no network, or a small one.
NUMPY = "numpy"
_PACKAGES = {ONNX: "onnxruntime", TORCH: "torch"}


class Network(Protocol):
    """A network with its weights in memory."""

    #: bytes of its tensors
    nbytes: int
    #: names of its outputs, in their order
    outputs: tuple[str, ...]

    def __call__(self, **inputs: Array) -> list[Array]:
        """Computes all outputs of one batch."""

    def some(self, names: Sequence[str], **inputs: Array) -> list[Array]:
        """Computes the named outputs of one batch, in the order of the names."""


def installed_runtimes() -> tuple[str, ...]:
    """Returns the runtimes whose packages are installed; none of them is imported."""
    return tuple(name for name in RUNTIMES if find_spec(_PACKAGES[name]) is not None)
