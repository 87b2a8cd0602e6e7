"""The weights that come with this package, read into numpy and checked. No torch."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from s2m3.agents.modules.ranking import Floats
from s2m3.agents.zoo.wheels import shipped_weights
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["read_tensors", "read_weights"]


def read_weights(spec: ModuleSpec, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Returns the tensors of the shipped weights that a spec's prefix names.

    Raises:
        ModuleFailedError: The file is missing, damaged, or holds other tensors than those of `shapes`.
    """
    return read_tensors(shipped_weights(spec.prefix), shapes)


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Returns the tensors of a safetensors file.

    Raises:
        ModuleFailedError: The file is missing, damaged, or holds other tensors than those of `shapes`.
    """
    try:
        tensors: dict[str, Floats] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModuleFailedError(f"{path.name} cannot be read: {error}") from error
    have = {name: tensor.shape for name, tensor in tensors.items()}
    if have != dict(shapes):
        raise ModuleFailedError(f"{path.name} holds {have}, not {dict(shapes)}")
    return tensors
