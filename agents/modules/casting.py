"""Puts a network's weights into another dtype; what goes in and comes out stays float32, so nobody else need know."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from s2m3.schemas import extras
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["put_into", "tensors_of"]

#: transformers' Conv1D: by its name, for a network may have been built without transformers.
_TURNED = "Conv1D"
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def put_into(network: nn.Module, dtype: Dtype | None) -> None:
    """Converts a network in place.

    bfloat16 and float16: all its numbers. int8: the matrices of its linear layers (torchao, weights only, a scale for
    each output); embeddings, convolutions and norms stay, and so does a last layer that is the embedding itself: in
    int8 it would be a second copy.

    Raises:
        ModuleFailedError: int8, and torchao is not installed.
    """
    if dtype in _HALVES:
        half = _HALVES[dtype]
        network.to(half)
        network.register_forward_pre_hook(lambda _, args, kwargs: _cast((args, kwargs), half), with_kwargs=True)
        network.register_forward_hook(lambda _, __, found: _cast(found, torch.float32))
    elif dtype == "int8":
        try:
            from torchao.quantization import Int8WeightOnlyConfig, quantize_  # noqa: PLC0415  # only where it is chosen
        except ImportError as error:
            raise ModuleFailedError(f"int8 needs the package torchao ({extras.hint('int8')})") from error
        _as_linear(network)
        tables = {layer.weight.data_ptr() for layer in network.modules() if isinstance(layer, nn.Embedding)}
        quantize_(network, Int8WeightOnlyConfig(), lambda layer, _: _is_matrix(layer) and _at(layer) not in tables)


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
    """Returns a value with its floating-point tensors in a dtype: tensors, and tuples, lists and maps of them."""
    match value:
        case torch.Tensor():
            return value.to(dtype) if value.is_floating_point() else value
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(_cast(item, dtype) for item in value))
        case tuple() | list():
            return type(value)(_cast(item, dtype) for item in value)
        case dict():  # a result of transformers is one, and keeps its class
            for key in list(value):
                value[key] = _cast(value[key], dtype)
            return value
        case _ if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: _cast(getattr(value, f.name), dtype) for f in fields(value)})
        case _:
            return value


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
