"""Whisper's CTranslate2 tensors as Hugging Face configurations and weights, one part at a time."""

from collections.abc import Mapping

import numpy as np
import torch
from transformers import WhisperConfig

from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Tensor

__all__ = ["decoder_config", "encoder_config", "part_state"]


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModuleFailedError(f"the Whisper file holds no {name}")
    return tensors[name]


def _number_of_layers(tensors: Mapping[str, Tensor]) -> int:
    return len({top for name in tensors if (top := name.split("/")[0]).removeprefix("layer_").isdigit()})


def encoder_config(tensors: Mapping[str, Tensor]) -> WhisperConfig:
    """Returns the configuration that fits an encoder's tensors (names without `encoder/`)."""
    width, mels, _ = _tensor(tensors, "conv1/weight").shape
    return WhisperConfig(
        d_model=width,
        num_mel_bins=mels,
        encoder_layers=_number_of_layers(tensors),
        encoder_attention_heads=int(_tensor(tensors, "num_heads").item()),
        encoder_ffn_dim=_tensor(tensors, "layer_0/ffn/linear_0/bias").shape[0],
        max_source_positions=_tensor(tensors, "position_encodings/encodings").shape[0],
    )


def decoder_config(tensors: Mapping[str, Tensor]) -> WhisperConfig:
    """Returns the configuration that fits a decoder's tensors (names without `decoder/`)."""
    vocabulary, width = _tensor(tensors, "embeddings/weight").shape
    return WhisperConfig(
        d_model=width,
        vocab_size=vocabulary,
        decoder_layers=_number_of_layers(tensors),
        decoder_attention_heads=int(_tensor(tensors, "num_heads").item()),
        decoder_ffn_dim=_tensor(tensors, "layer_0/ffn/linear_0/bias").shape[0],
        max_target_positions=_tensor(tensors, "position_encodings/encodings").shape[0],
    )


class _Renaming:
    """Collects one part's weights by their Hugging Face names, in float32."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.state: dict[str, torch.Tensor] = {}

    def put(self, name: str, source: str, rows: slice = slice(None)) -> None:
        self.state[name] = torch.from_numpy(_tensor(self._tensors, source)[rows].astype(np.float32))

    def norm(self, name: str, source: str) -> None:
        self.put(f"{name}.weight", f"{source}/gamma")
        self.put(f"{name}.bias", f"{source}/beta")

    def linear(self, name: str, source: str, rows: slice = slice(None)) -> None:
        self.put(f"{name}.weight", f"{source}/weight", rows)
        self.put(f"{name}.bias", f"{source}/bias", rows)

    def fused(self, name: str, source: str, letters: str) -> None:
        """Cuts the one matrix of an attention's queries, keys and values (or of the latter two) apart."""
        width = len(_tensor(self._tensors, f"{source}/weight")) // len(letters)
        for number, letter in enumerate(letters):
            self.linear(f"{name}.{letter}_proj", source, slice(number * width, (number + 1) * width))
        if self.state.pop(f"{name}.k_proj.bias").any():
            raise ModuleFailedError(f"the Whisper file has a bias for the keys of {source}")

    def layer(self, ours: str, theirs: str, *, crosses: bool) -> None:
        self.norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
        self.fused(f"{ours}.self_attn", f"{theirs}/self_attention/linear_0", "qkv")
        self.linear(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
        if crosses:
            self.norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
            self.linear(f"{ours}.encoder_attn.q_proj", f"{theirs}/attention/linear_0")
            self.fused(f"{ours}.encoder_attn", f"{theirs}/attention/linear_1", "kv")
            self.linear(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2")
        self.norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
        self.linear(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
        self.linear(f"{ours}.fc2", f"{theirs}/ffn/linear_1")


def part_state(tensors: Mapping[str, Tensor], *, decoder: bool) -> dict[str, torch.Tensor]:
    """Returns one part's weights by their Hugging Face names, in float32.

    Args:
        tensors: The part's tensors, names without `encoder/` or `decoder/`.
        decoder: Whether it is the decoder, which has token embeddings and cross-attention in place of convolutions.

    Raises:
        ModuleFailedError: A tensor is missing, or a key projection has a bias, which Whisper has not.
    """
    names = _Renaming(tensors)
    names.put("embed_positions.weight", "position_encodings/encodings")
    names.norm("layer_norm", "layer_norm")
    for number in range(_number_of_layers(tensors)):
        names.layer(f"layers.{number}", f"layer_{number}", crosses=decoder)
    if decoder:
        names.put("embed_tokens.weight", "embeddings/weight")
    else:
        names.linear("conv1", "conv1")
        names.linear("conv2", "conv2")
    return names.state
