"""Builds the network of a part: transformers' own class, from the part's tensors alone. No weight is left random."""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING
from transformers.utils import logging

from s2m3.agents.checkpoints.configuration import part_configuration, whole_configuration
from s2m3.agents.checkpoints.openclip import build_tower
from s2m3.agents.checkpoints.part import CheckpointPart, read_raw
from s2m3.agents.checkpoints.towers import one_tower
from s2m3.agents.modules.casting import put_into
from s2m3.agents.modules.state_dicts import check_keys, fill
from s2m3.schemas.checkpoints.headers import TensorInfo
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["build_network", "build_projector", "taken_by"]

# What is wrong with a checkpoint is in our errors; the log is one line per event.
logging.set_verbosity(logging.CRITICAL)
logging.disable_progress_bar()

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_AUTO = {"AutoModel": MODEL_MAPPING, "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING}
_PROJECTOR, _OPEN_CLIP = "projector.", "open_clip."


def build_network(opened: CheckpointPart) -> Any:
    """Returns a part's network, set to inference.

    Raises:
        ModuleFailedError: The configuration does not fit, or weights are missing or of another shape; the text names
            them.
    """
    has_projector = opened.part.projector is not None
    state = _read(opened, lambda name: not (has_projector and name.startswith(_PROJECTOR)))
    if opened.part.network.startswith(_OPEN_CLIP):
        model = opened.checkpoint.config["model_cfg"]
        tower = build_tower(opened.part.network.removeprefix(_OPEN_CLIP), model, state, opened.spec.id)
        put_into(tower, opened.spec.dtype)
        return tower
    features = opened.part.features
    config = whole_configuration(opened) if features else part_configuration(opened)
    network_class = _class(opened.part.network.replace("{architecture}", opened.architecture), config)
    if features:
        network_class = one_tower(network_class, features, opened.part.prefixes.values())
    try:
        network, info = network_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_keys refuses them, and names them
            **opened.part.init,
        )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModuleFailedError(f"module {opened.spec.id} does not fit its configuration: {why}"[:500]) from error
    misshapen = [key for key, *_ in info["mismatched_keys"]]
    check_keys(opened.spec.id, info["missing_keys"], info["unexpected_keys"], misshapen)
    network.eval().requires_grad_(requires_grad=False)
    put_into(network, opened.spec.dtype)
    return network


def taken_by(network: nn.Module) -> frozenset[str]:
    """Returns the names of the arguments that a network's `forward` takes."""
    return frozenset(signature(network.forward).parameters)


def build_projector(opened: CheckpointPart) -> nn.Module | None:
    """Returns what a decoder applies to the encoder's output first; None where its checkpoint has no such thing.

    Raises:
        ModuleFailedError: Its weights are missing or do not fit.
    """
    wanted = opened.part.projector
    if wanted is None:
        return None
    found = _read(opened, lambda name: name.startswith(_PROJECTOR))
    state = {name[len(_PROJECTOR) :]: tensor.float() for name, tensor in found.items()}
    if not state and wanted.optional:
        return None
    if not state:
        raise ModuleFailedError(f"the weights of {opened.spec.id} do not fit: missing: {' or '.join(wanted.prefixes)}…")
    if wanted.network == "linear":
        out, into = state["weight"].shape
        projector: nn.Module = nn.Linear(into, out, bias="bias" in state)
    else:
        projector = _class(wanted.network, None)(whole_configuration(opened))
    fill(projector, state, opened.spec.id, opened.spec.dtype)
    return projector


def _read(opened: CheckpointPart, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Returns the part's wanted tensors by their names in the part; nothing else of the files is read."""
    names = {name: inside for name, inside in opened.names.items() if wanted(inside)}
    return {inside: _tensor(opened.checkpoint.tensors[name]) for name, inside in names.items()}


def _tensor(info: TensorInfo) -> torch.Tensor:
    """Returns one tensor; numbers in float32 at once, so that no second copy of all of them is ever held."""
    dtype = _DTYPES[info.dtype]
    raw = read_raw(info)
    tensor = torch.from_numpy(raw).view(dtype) if raw.nbytes else torch.empty(0, dtype=dtype)
    return (tensor.float() if dtype.is_floating_point else tensor).reshape(info.shape)


def _class(path: str, config: Any) -> Any:
    """Returns a class of transformers by its name, or by its module's path there."""
    if path in _AUTO:
        mapping: Mapping[Any, Any] = _AUTO[path]
        found = mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    module, dot, name = path.rpartition(".")
    found = getattr(import_module(f"transformers.{module}") if dot else transformers, name, None)
    if found is None:
        raise ModuleFailedError(f"this version of transformers has no {path}")
    return found
