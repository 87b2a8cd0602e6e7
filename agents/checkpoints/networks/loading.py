"""Builds the network of a part: transformers' own class, from the part's tensors alone. No weight is left random."""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import torch
import transformers
from torch import nn
from transformers import modeling_utils
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING
from transformers.utils import logging

from s2m3.agents.checkpoints.networks.lora import apply_adapter
from s2m3.agents.checkpoints.networks.openclip import build_tower
from s2m3.agents.checkpoints.networks.partial import partial_class
from s2m3.agents.checkpoints.networks.towers import one_tower
from s2m3.agents.checkpoints.storage.configuration import part_configuration, whole_configuration
from s2m3.agents.checkpoints.storage.identity import known_digests
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.stored import StoredTensor, read_tensor
from s2m3.agents.modules.casting import HALVES, cast_around, put_into, quantised_as_set
from s2m3.agents.modules.state_dicts import check_keys, fill
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["build_network", "build_projector", "load_network", "read_projector", "stored_tensors", "taken_by"]

# What is wrong with a checkpoint is in our errors; the log is one line per event.
logging.set_verbosity(logging.CRITICAL)
logging.disable_progress_bar()
# transformers reads all tensors ahead in threads: in a dtype smaller than the file's, all would be there twice.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")

_AUTO = {"AutoModel": MODEL_MAPPING, "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING}
_PROJECTOR, _OPEN_CLIP = "projector.", "open_clip."


def build_network(opened: CheckpointPart) -> Any:
    """Returns a part's network in the module's dtype, set to inference. No tensor is in memory twice.

    Raises:
        ModuleFailedError: The configuration does not fit, or weights are missing or of another shape; the text names
            them.
    """
    if opened.part.network.startswith(_OPEN_CLIP):
        model, stored = opened.checkpoint.config["model_cfg"], stored_tensors(opened, _is_of_network(opened))
        read = {name: tensor.to(dtype=torch.float32) for name, tensor in stored.items()}
        tower = build_tower(opened.part.network.removeprefix(_OPEN_CLIP), model, read, opened.spec.id)
        put_into(tower, opened.spec.dtype)
        return tower
    features = opened.part.features
    config = whole_configuration(opened) if features else part_configuration(opened)
    network_class = _class(opened.part.network.replace("{architecture}", opened.architecture), config)
    if opened.part.keep or opened.part.without:
        network_class = partial_class(network_class, opened.part.keep, opened.part.without)
    elif features:
        network_class = one_tower(network_class, features, opened.part.prefixes.values())
    state = stored_tensors(opened, _is_of_network(opened))
    network = load_network(
        network_class, config, state, opened.spec.id, opened.spec.dtype, **_taken(network_class, opened.part.init)
    )
    if opened.adapter is not None:
        apply_adapter(network, opened.adapter)
    return network


def load_network(
    network_class: type[modeling_utils.PreTrainedModel],
    config: Any,
    state: Mapping[str, StoredTensor],
    module_id: str,
    dtype: Dtype | None,
    **init: Any,
) -> Any:
    """Returns a network of transformers with its weights, set to inference; float32 goes in and comes out.

    bfloat16 and float16 are as transformers loads them (`dtype=…`): what a class keeps in float32 stays so.

    Args:
        network_class: A class with transformers' `from_pretrained`.
        config: Its configuration.
        state: The weights by their names in the network; each is read when its turn comes.
        module_id: For the errors.
        dtype: Of the weights in memory: see agents/modules/casting.py.
        init: Further arguments of the class.

    Raises:
        ModuleFailedError: The configuration does not fit, or weights are missing or of another shape; the text names
            them.
    """
    try:
        with quantised_as_set(dtype, leaving=getattr(config.get_text_config(), "vocab_size", None)):
            network, info = network_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(state),
                dtype=HALVES.get(dtype, torch.float32),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # check_keys refuses them, and names them
                **init,
            )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ModuleFailedError(f"module {module_id} does not fit its configuration: {why}"[:500]) from error
    misshapen = [key for key, *_ in info["mismatched_keys"]]
    check_keys(module_id, info["missing_keys"], info["unexpected_keys"], misshapen)
    network.eval().requires_grad_(requires_grad=False)
    if dtype in HALVES:
        cast_around(network, HALVES[dtype])
    else:
        put_into(network, dtype)
    return network


def taken_by(network: nn.Module) -> frozenset[str]:
    """Returns the names of the arguments that a network's `forward` takes."""
    return frozenset(signature(network.forward).parameters)


def _taken(network_class: Any, init: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of a part's arguments that its class has: of AutoModel's classes not all can leave out a pooler."""
    known = signature(network_class.__init__).parameters
    return {name: value for name, value in init.items() if name in known}


def build_projector(opened: CheckpointPart) -> nn.Module | None:
    """Returns what a decoder applies to the encoder's output first; None where its checkpoint has no such thing.

    Raises:
        ModuleFailedError: Its weights are missing or do not fit.
    """
    wanted = opened.part.projector
    if wanted is None:
        return None
    state = read_projector(opened)
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


def stored_tensors(opened: CheckpointPart, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, StoredTensor]:
    """Returns the part's wanted tensors by their names in the part, none of them read; mapped if its module says so."""
    tensors = {inside: info for inside, info in opened.tensors().items() if wanted(inside)}
    known = known_digests(tensors)  # by what fingerprints have read; nothing is read for it
    mapped = opened.spec.map_weights == "always"
    return {inside: StoredTensor(info, known.get(inside), mapped=mapped) for inside, info in tensors.items()}


def _is_of_network(opened: CheckpointPart) -> Callable[[str], bool]:
    has_projector = opened.part.projector is not None
    return lambda name: not (has_projector and name.startswith(_PROJECTOR))


def read_projector(opened: CheckpointPart) -> dict[str, torch.Tensor]:
    """Returns the tensors of a part's projector by their names there, float32."""
    found = _read(opened, lambda name: name.startswith(_PROJECTOR))
    return {name[len(_PROJECTOR) :]: tensor for name, tensor in found.items()}


def _read(opened: CheckpointPart, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Returns the part's wanted tensors, numbers in float32; nothing else of the files is read."""
    return {name: read_tensor(info, torch.float32) for name, info in opened.tensors().items() if wanted(name)}


def _class(path: str, config: Any) -> Any:
    """Returns a class of transformers by its name, or by its module's path there."""
    if path in _AUTO:
        mapping: Mapping[Any, Any] = _AUTO[path]
        if type(config) not in mapping:
            raise ModuleFailedError(f"transformers has no {path} of {type(config).__name__}")
        found = mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    module, dot, name = path.rpartition(".")
    found = getattr(import_module(f"transformers.{module}") if dot else transformers, name, None)
    if found is None:
        raise ModuleFailedError(f"this version of transformers has no {path}")
    return found
