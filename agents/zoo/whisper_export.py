"""Exports of Whisper's two halves: the encoder with the voice detector, the decoder with its keys and values."""

import io
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from s2m3.agents.media.log_mel import LogMel
from s2m3.agents.media.sounds import RATE
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.zoo.speech import STATES, SpeechEncoder
from s2m3.agents.zoo.whisper import SpeechDecoder
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["export_decoder", "export_encoder"]

#: Tokens before a step in the samples; the first is what is traced and timed.
_BEFORE = (7, 0, 40)


class _Crossing(nn.Module):
    """Hidden states (1, states, width) to the keys and values of each layer that cross-attends to them."""

    def __init__(self, decoder: WhisperDecoder) -> None:
        super().__init__()
        attentions: list[Any] = [layer.encoder_attn for layer in decoder.layers]
        self.attentions = nn.ModuleList(attentions)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns key, value, key, value, …, each (1, heads, states, width of a head)."""
        found = []
        for attention in self.attentions:
            shape = (1, -1, attention.num_heads, attention.head_dim)
            projections: list[Any] = [attention.k_proj, attention.v_proj]
            found += [part(hidden).view(shape).transpose(1, 2) for part in projections]
        return tuple(found)


class _Step(nn.Module):
    """One token of one text: its id, its position, and all keys and values, to logits and the text's own new ones."""

    def __init__(self, decoder: WhisperDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.layers = len(decoder.layers)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, *cached: torch.Tensor) -> Any:
        """Returns logits (1, vocabulary), and keys and values with those of this token."""
        own, crossing = (_pairs(part) for part in (cached[: 2 * self.layers], cached[2 * self.layers :]))
        cache = EncoderDecoderCache(DynamicCache(own), DynamicCache(crossing))
        width = self.decoder.config.d_model
        found = self.decoder(
            input_ids=input_ids,
            position_ids=position_ids,
            past_key_values=cache,
            encoder_hidden_states=torch.zeros(1, STATES, width),  # what is made of them is in the cache
            use_cache=True,
        ).last_hidden_state
        # the embedding itself, not a turned copy of it: one table in the file
        logits = torch.matmul(self.decoder.embed_tokens.weight, found[:, -1].transpose(0, 1)).transpose(0, 1)
        kept = [tensor for layer in cache.self_attention_cache.layers for tensor in (layer.keys, layer.values)]
        return (logits, *kept)


def _pairs(tensors: tuple[torch.Tensor, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def export_encoder(module: SpeechEncoder) -> Export:
    """Returns what goes into the encoder's exported part."""
    if not isinstance(module.network, TorchNetwork):
        raise ModuleFailedError("what ONNX Runtime runs is exported already")
    mels = module.network.module.get_parameter("network.conv1.weight").shape[1]
    random = np.random.default_rng(0)
    filters = WhisperFeatureExtractor(feature_size=mels).mel_filters.astype(np.float32)
    seconds = np.arange(5 * RATE, dtype=np.float32) / RATE
    tones = np.array([[150.0], [300.0], [700.0], [1900.0]])
    sound = np.sin(2 * np.pi * tones * seconds * (1 + 0.1 * seconds)).sum(0) / 8
    spectrogram = LogMel(filters)((sound + random.normal(0, 0.01, len(sound))).astype(np.float32))
    networks = {"model": ExportedNetwork(module.network, [{"mel": spectrogram}], {})}
    if module.voice is not None and isinstance(module.voice.network, TorchNetwork):
        windows = [random.uniform(-0.5, 0.5, (n, 1, 640)).astype(np.float32) for n in (31, 1, 90)]
        samples = [{"windows": one} for one in windows]
        networks["voice"] = ExportedNetwork(module.voice.network, samples, {"windows": [0]})
    file = io.BytesIO()
    np.savez(file, filters=filters)
    return Export(networks, {"filters.npz": file.getvalue()}, {"width": module.width})


def export_decoder(module: SpeechDecoder) -> Export:
    """Returns what goes into the decoder's exported part."""
    decoder, config = module.network, module.network.config
    layers, heads, width = config.decoder_layers, config.decoder_attention_heads, config.d_model
    kept = [f"{kind}_{number}" for number in range(layers) for kind in ("key", "value")]
    crossing = [f"crossing_{name}" for name in kept]
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return random.standard_normal(shape, np.float32)

    def step(before: int) -> dict[str, Any]:
        sample = {"input_ids": np.array([[1_234 + before]]), "position_ids": np.array([[before]])}
        sample |= {name: drawn(1, heads, before, width // heads) for name in kept}
        return sample | {name: drawn(1, heads, STATES, width // heads) for name in crossing}

    steps = TorchNetwork(_Step(decoder), ["input_ids", "position_ids", *kept, *crossing], ["logits", *_new(kept)])
    crossed = TorchNetwork(_Crossing(decoder), ["hidden"], crossing)
    networks = {
        "model": ExportedNetwork(steps, [step(before) for before in _BEFORE], {name: [2] for name in kept}),
        "crossing": ExportedNetwork(crossed, [{"hidden": drawn(1, STATES, width)}], {}),
    }
    notes = {
        "marks": asdict(module.marks),
        "never": module.stop.never,
        "never_first": module.stop.never_first,
        "cache": asdict(module.cache_size),
        "shape": {"layers": layers, "heads": heads, "width": width},
    }
    return Export(networks, {"tokenizer.json": module.tokenizer.to_str().encode()}, notes)


def _new(names: list[str]) -> list[str]:
    return [f"new_{name}" for name in names]
