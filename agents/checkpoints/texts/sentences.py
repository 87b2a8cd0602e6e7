"""Sentence encoders: a text network, then what a folder in sentence-transformers' format says comes after it.

Reimers and Gurevych, Sentence-BERT, EMNLP 2019. A folder without such files is pooled by the mean over the tokens, as
sentence-transformers does with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from s2m3.agents.checkpoints.networks.loading import build_network, read_projector
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.ports import Config, read_config
from s2m3.schemas.checkpoints.sentence_folders import SENTENCE, modules_of
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["SentenceConfig", "SentenceNetwork", "build_sentence_network", "prompt_of"]

_MEAN = {"pooling_mode_mean_tokens": True}


class SentenceConfig(Config):
    """Options of a sentence encoder's module: a prompt of the folder by its name, or one in words."""

    prompt_name: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class _Embedded:
    sentence_embedding: Tensor


class SentenceNetwork(nn.Module):
    """Texts of one length to embeddings (texts, width), field `sentence_embedding`.

    Args:
        network: Gives `last_hidden_state`.
        steps: What follows, each from (texts, tokens, width) or (texts, width) to (texts, width).
    """

    def __init__(self, network: nn.Module, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = network
        self.steps = nn.Sequential(*steps)
        self.config = network.config

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> _Embedded:
        """Returns the embeddings."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        embedding: Tensor = self.steps(self.network(input_ids=input_ids, **types).last_hidden_state)
        return _Embedded(embedding)


class _Pooling(nn.Module):
    """Rows without padding: every token counts. Several ways are joined in sentence-transformers' order."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        named = config.get("pooling_mode")
        given = {f"pooling_mode_{name}": True for name in ([named] if isinstance(named, str) else named or ())}
        asked = {**config, **given}
        found = [way for way, keys in _WAYS.items() if any(asked.get(key) for key in keys)]
        self._ways = found or ["mean"]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([_pooled(way, x) for way in self._ways], dim=-1)


#: Way of pooling -> keys of 1_Pooling/config.json that ask for it, in the order in which several are joined.
_WAYS = {
    "cls": ("pooling_mode_cls_token", "pooling_mode_cls"),
    "max": ("pooling_mode_max_tokens", "pooling_mode_max"),
    "mean": ("pooling_mode_mean_tokens", "pooling_mode_mean"),
    "sqrt": ("pooling_mode_mean_sqrt_len_tokens",),
    "weighted": ("pooling_mode_weightedmean_tokens", "pooling_mode_weightedmean"),
    "last": ("pooling_mode_lasttoken",),
}


def _pooled(way: str, x: Tensor) -> Tensor:
    match way:
        case "cls":
            return x[:, 0]
        case "last":
            return x[:, -1]
        case "max":
            return torch.amax(x, 1)
        case "sqrt":
            return x.sum(1) / math.sqrt(x.shape[1])
        case "weighted":
            weights = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
            return (x * weights).sum(1) / weights.sum()
        case _:
            return x.mean(1)


class _Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, p=2.0, dim=1)


def build_sentence_network(opened: CheckpointPart) -> SentenceNetwork:
    """Returns a sentence encoder's network with all its steps, set to inference.

    Raises:
        ModuleFailedError: Weights or the configuration of a step do not fit; the text names them.
    """
    network, dense = build_network(opened), read_projector(opened)
    said = modules_of(opened.checkpoint.config)
    steps = [_Pooling(_MEAN)] if not said else [_step(step, dense, opened.spec.id) for step in said[1:]]
    whole = SentenceNetwork(network, steps)
    whole.eval().requires_grad_(requires_grad=False)
    return whole


def _step(step: Mapping[str, Any], weights: Mapping[str, Tensor], module: str) -> nn.Module:
    match step["kind"]:
        case "Pooling":
            return _Pooling(step["config"])
        case "Normalize":
            return _Normalize()
        case "Dense":
            return _dense(step, weights, module)
        case "Dropout":
            return nn.Identity()
    raise ModuleFailedError(f"module {module}: modules.json has the step {step['kind']!r}, which is not known")


def _dense(step: Mapping[str, Any], weights: Mapping[str, Tensor], module: str) -> nn.Module:
    kind = str(step["config"].get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    weight, bias = (weights.get(f"{step['path']}.linear.{name}") for name in ("weight", "bias"))
    activation = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "Sigmoid": nn.Sigmoid}
    if weight is None or weight.dim() != 2 or kind not in activation:  # noqa: PLR2004 - a matrix
        raise ModuleFailedError(f"module {module}: the weights or the activation {kind} of {step['path']} do not fit")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}), assign=True)
    return nn.Sequential(layer, activation[kind]())


def prompt_of(opened: CheckpointPart, name: str | None = None) -> str:
    """Returns what stands before every text: the module's own prompt, else one of the folder's; empty without one.

    Args:
        opened: The part.
        name: A prompt's name that counts where the folder has it; None: the module's `prompt_name`, else the folder's
            `default_prompt_name`.

    Raises:
        ModuleFailedError: The module's configuration names a prompt that the folder does not have.
    """
    own = read_config(opened.spec, SentenceConfig)
    settings = opened.checkpoint.config.get(SENTENCE, {}).get("settings", {})
    prompts = settings.get("prompts") or {}
    if name is not None:
        return str(prompts.get(name) or "")
    if own.prompt is not None:
        return own.prompt
    if own.prompt_name is not None and own.prompt_name not in prompts:
        known = ", ".join(prompts) or "none"
        raise ModuleFailedError(f"module {opened.spec.id}: config.prompt_name: {own.prompt_name!r} is none of {known}")
    return str(prompts.get(own.prompt_name or settings.get("default_prompt_name")) or "")
