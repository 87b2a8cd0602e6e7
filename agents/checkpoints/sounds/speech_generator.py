"""Class `speech-generator`: a text to a WAV file in which it is spoken (VITS, MMS-TTS)."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import soundfile
import torch
from pydantic import Field

from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_tokenizer
from s2m3.agents.modules.ports import Config, read_config, text_port
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.generation import NO_OPTIONS, Options
from s2m3.schemas.wire.values import Value

__all__ = ["SpeechGenerator", "SpeechGeneratorConfig", "load_speech_generator"]

#: Characters of one text: some two minutes of speech.
_MAX_CHARACTERS = 2_000


class SpeechGeneratorConfig(Config):
    """The voice of a checkpoint that has several, by its number; without one, the network is given no voice."""

    speaker_id: int | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class _Item:
    """A text's tokens, (1, tokens), and the seed of the noise from which its speech is made."""

    ids: torch.Tensor
    seed: int


class SpeechGenerator:
    """`text` to `audio`: one WAV file, 16 bits, mono, at the checkpoint's sampling rate.

    Of a request's options the seed counts: the speech is that of transformers after `torch.manual_seed(seed)`.
    """

    light = False
    #: The noise of a text would depend on those beside it.
    max_batch = 1

    def __init__(self, network: Any, tokenizer: Any, speaker: int | None) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._speaker = speaker
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item with the seed 0."""
        return self.prepare_with(inputs, NO_OPTIONS)

    def prepare_with(self, inputs: Mapping[str, Value], options: Options) -> _Item:
        """Returns the item with the seed of its request.

        Raises:
            BadInputError: No text, one that is too long, or one without a character that the vocabulary has.
        """
        text = text_port(inputs, "text")
        if len(text) > _MAX_CHARACTERS:
            raise BadInputError(f"a text of {len(text)} characters; at most {_MAX_CHARACTERS} are spoken at once")
        spoken, _ = self._tokenizer.prepare_for_tokenization(text)
        if not any(character in self._tokenizer.encoder for character in spoken):
            raise BadInputError("the text has no character that this checkpoint speaks")
        return _Item(self._tokenizer(text, return_tensors="pt")["input_ids"], options.seed or 0)

    @torch.inference_mode()
    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [{"audio": self._spoken(item)} if "audio" in wanted else {} for item in batch]

    def _spoken(self, item: _Item) -> bytes:
        with torch.random.fork_rng(devices=[]):  # the network draws from torch's own row of random numbers
            torch.manual_seed(item.seed)
            waveform = self._network(input_ids=item.ids, speaker_id=self._speaker).waveform
        return _wav(waveform[0].float().numpy(), self._network.config.sampling_rate)


def _wav(samples: Floats, rate: int) -> bytes:
    """Returns a WAV file of samples in -1..1."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def load_speech_generator(opened: CheckpointPart) -> SpeechGenerator:
    """Builds class `speech-generator`.

    Raises:
        ModuleFailedError: Weights or tokenizer do not fit, or there is no such voice; the text names it.
    """
    config = read_config(opened.spec, SpeechGeneratorConfig)
    network = build_network(opened)
    voices = network.config.num_speakers
    if config.speaker_id is not None and config.speaker_id >= voices:
        raise ModuleFailedError(f"module {opened.spec.id}: config.speaker_id: {config.speaker_id}: it has {voices}")
    return SpeechGenerator(network, read_tokenizer(opened), config.speaker_id)
