"""Parts of torch checkpoints: only the wanted keys, and nothing random left in a network."""

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from s2m3.agents.modules.casting import put_into, tensors_of
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["check_keys", "fill", "nbytes_of", "read_pth", "read_safetensors"]

_log = structlog.get_logger(__name__)
#: Characters of an error or a log line that names tensors.
_LONGEST = 1_000


def read_pth(path: Path, keep: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Returns the wanted tensors of a torch.save file, without running what a pickle may hold (weights_only).

    A file in torch's format from before 1.6 cannot be mapped: it is read through once, and the rest dropped.

    Raises:
        ModuleFailedError: The file cannot be read, or is no table of tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModuleFailedError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModuleFailedError(f"{path.name} is no table of tensors")
    return {key: value for key, value in state.items() if keep(key)}


def read_safetensors(path: Path, keep: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Returns the wanted tensors of a safetensors file; the others are not read.

    Raises:
        ModuleFailedError: The file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if keep(key)}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ModuleFailedError(f"{path.name} cannot be read: {error}") from error


def check_keys(name: str, missing: Iterable[str], unexpected: Iterable[str], misshapen: Iterable[str]) -> None:
    """Refuses weights that leave a part of a network without its own; tells those that no part of the network takes.

    Published checkpoints carry tensors that are no part of the network (a pooler that is not used, the causal masks of
    an old release): they change nothing, and are ignored as transformers ignores them. A tensor under another name
    than the network's is missing as well, and refused.

    Args:
        name: Of the module.
        missing: Weights of the network that are not given.
        unexpected: Weights that are given and that the network does not have.
        misshapen: Weights of another shape than the network's.

    Raises:
        ModuleFailedError: Something is missing or of another shape; the detail names all three kinds.
    """
    wrong = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(misshapen)}
    if wrong["missing"] or wrong["of another shape"]:
        found = [f"{kind}: {', '.join(keys)}" for kind, keys in wrong.items() if keys]
        raise ModuleFailedError(f"the weights of {name} do not fit: {'; '.join(found)}"[:_LONGEST])
    if others := wrong["unexpected"]:
        _log.warning("unexpected_weights", module=name, count=len(others), names=", ".join(others)[:_LONGEST])


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], name: str, dtype: Dtype | None = None) -> None:
    """Puts weights into a network and sets it to inference; every weight must be given.

    A network built on the meta device takes the tensors themselves: no second copy, no random start. That is only for
    networks without buffers outside the checkpoint; the others are built in memory and get copies. The weights are
    then put into the dtype: see agents/modules/casting.py.

    Raises:
        ModuleFailedError: Keys are missing, or shapes differ: see check_keys.
    """
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    misshapen = [key for key in wanted.keys() & given.keys() if wanted[key] != given[key]]
    check_keys(name, wanted.keys() - given.keys(), given.keys() - wanted.keys(), misshapen)
    taken = {key: state[key] for key in wanted}
    network.load_state_dict(taken, assign=all(weight.is_meta for weight in network.parameters()))
    network.eval().requires_grad_(requires_grad=False)
    put_into(network, dtype)


def nbytes_of(network: nn.Module) -> int:
    """Returns the bytes of a network's parameters and buffers, shared ones counted once."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in tensors_of(network)}
    return sum(tensors.values())
