"""Whisper for English as two modules: an audio encoder (sound to hidden states) and a decoder (hidden states to text).

Each is built alone from its part of a CTranslate2 file. Model: Radford et al., ICML 2023.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

from agents.zoo.checkpoints import fill, nbytes_of
from agents.zoo.checks import Config, port, read_config, tensor_port
from agents.zoo.ctranslate2 import read_tensors
from agents.zoo.heads import Floats
from agents.zoo.sounds import RATE, decode_sound
from agents.zoo.sources import wheel_file
from agents.zoo.whisper_weights import decoder_config, encoder_config, part_state
from schemas.definitions import ModuleSpec
from schemas.errors import ModuleFailedError
from schemas.values import Tensor, Value

__all__ = ["SpeechDecoder", "SpeechEncoder", "load_decoder", "load_encoder"]

#: Vocabulary of the English-only models, their end mark, and what every transcript starts from: start, no timestamps.
_VOCABULARY, _END, _PROMPT = 51_864, 50_256, (50_257, 50_362)


class SpeechDecoderConfig(Config):
    """The longest transcript, in tokens."""

    max_new_tokens: int = Field(ge=1, le=446)


class SpeechEncoder:
    """Class `whisper-encoder`: `audio` (one sound file) to `hidden` (1, 1500, 384) float32, always of 30 s of sound."""

    #: Its matrices are large already: a batch takes as long as its items one after another.
    light = False
    max_batch = 1

    def __init__(self, network: WhisperEncoder, mels: int) -> None:
        self._network = network
        self._spectrogram = WhisperFeatureExtractor(feature_size=mels)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> torch.Tensor:
        """Returns the item's log-mel spectrogram (1, 80, 3000), silence behind its end."""
        samples = decode_sound(port(inputs, "audio", "audio"))
        mel: torch.Tensor = self._spectrogram(samples, sampling_rate=RATE, return_tensors="pt").input_features
        return mel

    def run(self, batch: Sequence[torch.Tensor], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `hidden` of each item."""
        return [{"hidden": self._hidden(mel)} if "hidden" in wanted else {} for mel in batch]

    @torch.inference_mode()
    def _hidden(self, mel: torch.Tensor) -> Floats:
        hidden: Floats = self._network(mel).last_hidden_state.numpy()
        return hidden


class SpeechDecoder:
    """Class `whisper-decoder`: `hidden` (1, 1500, 384) float32 to `text`, by greedy decoding."""

    #: Each step reads all the weights, whatever the batch: eight at once gain x2.
    light = False
    max_batch = 8

    def __init__(
        self, network: WhisperDecoder, tokenizer: Tokenizer, never: Mapping[str, list[int]], longest: int
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._longest = longest
        #: Added to the logits: no symbols or marks, and as the first token neither a blank nor the end.
        self._mask = torch.zeros(_VOCABULARY)
        self._mask[never["suppress_ids"]] = -torch.inf
        self._first_mask = self._mask.clone()
        self._first_mask[never["suppress_ids_begin"]] = -torch.inf
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> Tensor:
        """Returns the item's hidden states."""
        return tensor_port(inputs, "hidden", (1, 1500, self._network.config.d_model))

    def run(self, batch: Sequence[Tensor], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `text` of each item, without the blank that Whisper begins with."""
        if "text" not in wanted:
            return [{} for _ in batch]
        rows = self._greedy(torch.from_numpy(np.concatenate(batch)))
        return [{"text": self._tokenizer.decode(row, skip_special_tokens=True).strip()} for row in rows]

    @torch.inference_mode()
    def _greedy(self, hidden: torch.Tensor) -> list[list[int]]:
        """Returns the likeliest next token, again and again, until every item has ended: (items, 1500, 384) to ids."""
        tokens = torch.tensor([_PROMPT] * len(hidden))
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        mask, going = self._first_mask, torch.ones(len(hidden), dtype=torch.bool)
        said: list[torch.Tensor] = []
        while going.any() and len(said) < self._longest:
            states = self._network(
                input_ids=tokens, encoder_hidden_states=hidden, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            logits = nn.functional.linear(states, self._network.embed_tokens.weight) + mask
            token = logits.argmax(-1).where(going, _END)
            said.append(token)
            going &= token != _END
            tokens, mask = token[:, None], self._mask
        return [[token for token in row if token != _END] for row in torch.stack(said, 1).tolist()]


def _never(path: Path) -> dict[str, list[int]]:
    """Returns the tokens that are never said (`suppress_ids`), and those never said first (`suppress_ids_begin`)."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {name: [int(token) for token in table[name]] for name in ("suppress_ids", "suppress_ids_begin")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModuleFailedError(f"{path.name} beside the Whisper model cannot be read: {error!r}") from error


def load_encoder(spec: ModuleSpec) -> SpeechEncoder:
    """Builds class `whisper-encoder`; nothing of the decoder is read.

    Raises:
        ModuleFailedError: The file is missing, damaged, or not a Whisper model.
    """
    read_config(spec, Config)
    tensors = read_tensors(wheel_file(spec.source, "model/model.bin"), "encoder/")
    config = encoder_config(tensors)
    with torch.device("meta"):
        network = WhisperEncoder(config)
    fill(network, part_state(tensors, decoder=False), spec.id)
    return SpeechEncoder(network, config.num_mel_bins)


def load_decoder(spec: ModuleSpec) -> SpeechDecoder:
    """Builds class `whisper-decoder`; nothing of the encoder is read.

    Raises:
        ModuleFailedError: A file is missing, damaged, or not of an English-only Whisper model.
    """
    longest = read_config(spec, SpeechDecoderConfig).max_new_tokens
    path = wheel_file(spec.source, "model/model.bin")
    tensors = read_tensors(path, "decoder/")
    config = decoder_config(tensors)
    if config.vocab_size != _VOCABULARY:
        raise ModuleFailedError(f"{path.name} has {config.vocab_size} tokens; English-only Whisper has {_VOCABULARY}")
    with torch.device("meta"):
        network = WhisperDecoder(config)
    fill(network, part_state(tensors, decoder=True), spec.id)
    tokenizer = Tokenizer.from_file(str(path.with_name("tokenizer.json")))
    return SpeechDecoder(network, tokenizer, _never(path.with_name("config.json")), longest)
