"""LoRA adapters in PEFT's format: which are read, from their configuration and file names; no weights, no torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.errors import BadInputError, UnsupportedCheckpointError

__all__ = ["ADAPTER", "ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "adapter_scale", "read_adapter_config"]

#: The option of a module's configuration that names an adapter's folder.
ADAPTER = "adapter"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: Settings that make more of an adapter than two small matrices beside a linear layer -> the value without effect.
_PLAIN: Mapping[str, Any] = {
    "bias": "none",
    "use_dora": False,
    "lora_bias": False,
    "layer_replication": None,
    "megatron_config": None,
    "modules_to_save": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
}
#: Ways of initialising an adapter that change the base's own numbers.
_REBASED = ("pissa", "olora", "loftq", "corda", "eva")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a LoRA adapter whose kind is read.

    Raises:
        BadInputError: The folder is none of an adapter, or (UnsupportedCheckpointError) the adapter is of a kind, or in
            a format, that is not read; the text says which.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise BadInputError(f"{folder.name} is no adapter: it holds no {ADAPTER_CONFIG}")
    config = read_json(folder / ADAPTER_CONFIG)
    if (kind := config.get("peft_type")) != "LORA":
        raise UnsupportedCheckpointError(f"{folder.name} is an adapter of the kind {str(kind)[:40]}; LORA is read")
    found = {key: config[key] for key, usual in _PLAIN.items() if config.get(key, usual) not in (usual, None, [], {})}
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_REBASED):
        found["init_lora_weights"] = start
    if found:
        said = ", ".join(f"{key}={str(value)[:40]}" for key, value in found.items())
        raise UnsupportedCheckpointError(f"{folder.name} is a LoRA adapter of a kind that is not read: {said}")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UnsupportedCheckpointError(f"{folder.name} holds no {ADAPTER_WEIGHTS}; pickles are never read")
    return config


def adapter_scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """Returns what a layer's adapter is multiplied with: alpha over the rank, or over its root (`use_rslora`).

    Args:
        config: The adapter's configuration.
        layer: Path of the layer in the base, for `alpha_pattern`.
        rank: Of its two matrices.
    """
    patterns = config.get("alpha_pattern") or {}
    alpha = next(
        (a for key, a in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), config.get("lora_alpha", 8)
    )
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)
