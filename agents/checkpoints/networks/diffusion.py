"""Builds the network of a pipeline's part: diffusers' own class, from the part's tensors alone."""

import os
from typing import Any

import torch

os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")  # what is wrong with a checkpoint is in our errors

import diffusers

from s2m3.agents.checkpoints.networks.loading import stored_tensors
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.casting import HALVES, put_into, quantised_as_set
from s2m3.agents.modules.state_dicts import check_keys
from s2m3.schemas.checkpoints.pipelines import DIFFUSERS
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["build_component", "made_of"]


def build_component(opened: CheckpointPart) -> Any:
    """Returns a part's network, set to inference. Each tensor is read once, into the module's dtype.

    In bfloat16 and float16 the network is as diffusers loads it with `dtype=…`: what goes in has to be that too.

    Raises:
        ModuleFailedError: The configuration does not fit, or weights are missing or of another shape; the text names
            them.
    """
    dtype, module_id = opened.spec.dtype, opened.spec.id
    with torch.device("meta"):
        network = made_of(opened, opened.part.network.removeprefix(DIFFUSERS), opened.value(opened.part.config))
    kept = {name.partition(".")[0] for name in opened.part.prefixes.values()}
    for child, _ in list(network.named_children()) if "" not in kept else []:
        if child not in kept:  # another half of it, which this part does not need
            delattr(network, child)
    state = stored_tensors(opened)
    network._fix_state_dict_keys_on_load(state)  # noqa: SLF001 - names of older releases, as in its from_pretrained
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    misshapen = [name for name in wanted.keys() & state.keys() if wanted[name] != state[name].shape]
    check_keys(module_id, wanted.keys() - state.keys(), state.keys() - wanted.keys(), misshapen)
    with quantised_as_set(dtype):
        for name in wanted:
            holder, _, leaf = name.rpartition(".")
            tensor = state[name].to(dtype=HALVES.get(dtype, torch.float32))
            network.get_submodule(holder).load_state_dict({leaf: tensor}, strict=False, assign=True)
    if left := [name for name, tensor in network.named_buffers() if tensor.is_meta]:
        raise ModuleFailedError(f"module {module_id}: {left[0]} is in no file and is not computed")
    network.eval().requires_grad_(requires_grad=False)
    if dtype not in HALVES:
        put_into(network, dtype)
    return network


def made_of(opened: CheckpointPart, name: str, config: object) -> Any:
    """Returns an object of a class of diffusers, made by its own `from_config`.

    Raises:
        ModuleFailedError: There is no such class, or the configuration does not fit.
    """
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise ModuleFailedError(f"this version of diffusers has no {name}")
    try:
        return kind.from_config(config)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError, NotImplementedError) as error:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name}: {name}: {error}"[:300]) from error
