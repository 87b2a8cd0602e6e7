"""Whisper's two classes as far as they do not depend on what runs the networks: sound to spectrogram, marks, limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from s2m3.agents.media.sounds import decode_sound
from s2m3.agents.modules.ports import Config, port
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.runtimes.network import Network
from s2m3.agents.serving.module import MANY
from s2m3.agents.zoo.voice_activity import VoiceActivity
from s2m3.schemas.wire.values import Value

__all__ = ["NO_SPEECH_ABOVE", "STATES", "Marks", "SpeechDecoderConfig", "SpeechEncoder"]

#: Hidden states of 30 s of sound.
STATES = 1500
#: The probability of its own token above which it is believed that nobody speaks (Radford et al., section 4.5).
#: Measured: speech 0.5 and less, silence, noise, hum and knocks 0.74 and more.
NO_SPEECH_ABOVE = 0.6


@dataclass(frozen=True)
class Marks:
    """The tokens of a vocabulary that are no words.

    Args:
        size: Of the vocabulary.
        end: Ends every transcript.
        start: Begins every transcript.
        behind: What follows, behind the language if there are several: the task, no timestamps.
        no_speech: What is said behind the first mark if nobody speaks.
        languages: Token -> code of a language; empty if there is only one.
    """

    size: int
    end: int
    start: int
    behind: tuple[int, ...]
    no_speech: int
    languages: Mapping[int, str] = field(default_factory=dict)

    @property
    def prompt(self) -> int:
        """Tokens of a transcript's prompt."""
        return 1 + bool(self.languages) + len(self.behind)


class SpeechDecoderConfig(Config):
    """Tokens of a transcript where a request names no number."""

    max_new_tokens: int = Field(ge=1, le=446)


class SpeechEncoder:
    """Class `whisper-encoder`: `audio` (one sound file) to `hidden` (1, 1500, width) float32, of 30 s of sound.

    Where nobody speaks `hidden` is all zeros, which no sound gives: a decoder then writes nothing.
    """

    #: Its matrices are large already: a batch takes as long as its items one after another.
    light = False
    max_batch = 1
    prepares_at_once = MANY
    repeatable = True

    def __init__(
        self, network: Network, spectrogram: Callable[[Floats], Floats], width: int, voice: VoiceActivity | None
    ) -> None:
        self.network, self.width, self.voice = network, width, voice
        self._spectrogram = spectrogram
        self.nbytes = network.nbytes + (voice.nbytes if voice else 0)

    def prepare(self, inputs: Mapping[str, Value]) -> Floats | None:
        """Returns the item's log-mel spectrogram (1, 80, 3000), silence behind its end; None where nobody speaks."""
        samples = decode_sound(port(inputs, "audio", "audio"))
        if self.voice is not None and not self.voice.is_speech(samples):
            return None
        return self._spectrogram(samples)

    def run(self, batch: Sequence[Floats | None], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `hidden` of each item."""
        return [{"hidden": self._hidden(mel)} if "hidden" in wanted else {} for mel in batch]

    def _hidden(self, mel: Floats | None) -> Floats:
        if mel is None:
            return np.zeros((1, STATES, self.width), np.float32)
        return self.network(mel=mel)[0]
