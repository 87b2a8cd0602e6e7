"""Puts a network's weights into another dtype; what goes in and comes out stays float32, so nobody else need know."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.modules.module import register_module_parameter_registration_hook

from s2m3.agents.memory import trim_heap
from s2m3.agents.modules.nested_tensors import with_tensors
from s2m3.schemas import extras
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["HALVES", "cast_around", "put_into", "quantised_as_set", "tensors_of"]

#: transformers' Conv1D: by its name, for a network may have been built without transformers.
_TURNED = "Conv1D"
#: Freed bytes of float32 matrices after which malloc's heap is trimmed: it keeps the holes between those in int8.
_TRIMMED = 8_000_000
#: The dtypes of a name that take half of float32's bytes.
HALVES: dict[str | None, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def put_into(network: nn.Module, dtype: Dtype | None) -> None:
    """Converts a network in place.

    bfloat16 and float16: all its numbers. int8: the matrices of its linear layers (torchao, weights only, a scale for
    each output); embeddings, convolutions and norms stay, and so does a last layer that is the embedding itself: in
    int8 it would be a second copy.

    Raises:
        ModuleFailedError: int8, and torchao is not installed.
    """
    if dtype in HALVES:
        network.to(HALVES[dtype])
        cast_around(network, HALVES[dtype])
    elif dtype == "int8":
        _as_linear(network)
        tables = {_at(layer) for layer in network.modules() if isinstance(layer, nn.Embedding)}
        _quantise(network, lambda layer: _at(layer) not in tables)


def cast_around(network: nn.Module, half: torch.dtype) -> None:
    """Makes a network whose weights are in another dtype take float32 and give float32."""
    network.register_forward_pre_hook(lambda _, args, kwargs: _cast((args, kwargs), half), with_kwargs=True)
    network.register_forward_hook(lambda _, __, found: _cast(found, torch.float32))


@contextmanager
def quantised_as_set(dtype: Dtype | None, leaving: int | None = None) -> Iterator[None]:
    """Puts matrices of linear layers into int8 as a network's weights are set, so that one is in float32 at a time.

    It counts for the calling thread, within the context, and does nothing for other dtypes. `put_into` does the rest.

    Args:
        dtype: Of the network.
        leaving: Matrices with so many rows stay as they are: whether the last layer is the embedding itself is known
            only in the end.

    Raises:
        ModuleFailedError: int8, and torchao is not installed.
    """
    if dtype != "int8":
        yield
        return
    own, busy, freed = get_ident(), False, 0

    def quantised(layer: nn.Module, name: str, weight: nn.Parameter | None) -> nn.Parameter | None:
        nonlocal busy, freed
        if get_ident() != own or busy or name != "weight" or weight is None or weight.is_meta:
            return None
        if not _is_matrix(layer) or _is_quantised(weight) or weight.shape[0] == leaving:
            return None
        freed += weight.nbytes
        if freed > _TRIMMED:
            trim_heap()
            freed = 0
        busy = True
        try:
            return _quantised(weight)
        finally:
            busy = False

    hook = register_module_parameter_registration_hook(quantised)  # type: ignore[arg-type]  # returns a parameter
    try:
        yield
    finally:
        hook.remove()


def _quantised(weight: nn.Parameter) -> nn.Parameter:
    """Returns a matrix in int8, with transformers' mark that its numbers are those of the checkpoint."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = weight
    _quantise(layer, lambda _: True)
    layer.weight._is_hf_initialized = getattr(weight, "_is_hf_initialized", False)  # type: ignore[attr-defined]  # noqa: SLF001
    return layer.weight


def _quantise(network: nn.Module, wanted: Callable[[nn.Module], bool]) -> None:
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_  # noqa: PLC0415  # only where it is chosen
    except ImportError as error:
        raise ModuleFailedError(f"int8 needs the package torchao ({extras.hint('int8')})") from error
    quantize_(network, Int8WeightOnlyConfig(), lambda layer, _: _is_plain_matrix(layer) and wanted(layer))


def _is_plain_matrix(layer: nn.Module) -> bool:
    return _is_matrix(layer) and not _is_quantised(layer.weight)


def _is_quantised(weight: Any) -> bool:
    return hasattr(weight.data, "__tensor_flatten__")


def _is_matrix(layer: nn.Module) -> bool:
    """Whether it is a linear layer that multiplies itself: the last one of torch's own attention does not."""
    return isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear)


def _at(layer: nn.Module) -> int:
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight.data_ptr()


def _as_linear(network: nn.Module) -> None:
    """GPT-2's layers are linear ones by another name, their matrices turned."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if type(layer).__name__ == _TURNED:
                state = layer.state_dict()
                matrix = state["weight"].T.contiguous()
                linear = nn.Linear(matrix.shape[1], matrix.shape[0], device="meta")
                linear.load_state_dict({"weight": matrix, "bias": state["bias"]}, assign=True)
                setattr(parent, name, linear.requires_grad_(requires_grad=False))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Returns a value with its floating-point tensors in a dtype."""
    return with_tensors(value, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def tensors_of(network: nn.Module) -> list[torch.Tensor]:
    """Returns a network's parameters and buffers; of a quantised one the tensors that it really holds."""
    found: list[torch.Tensor] = []
    for tensor in (*network.parameters(), *network.buffers()):
        found += _inner(tensor)
    return found


def _inner(tensor: torch.Tensor) -> list[torch.Tensor]:
    plain = tensor.data
    if not hasattr(plain, "__tensor_flatten__"):
        return [plain]
    names, _ = plain.__tensor_flatten__()
    return [part for name in names for part in _inner(getattr(plain, name))]
