"""Class `speech-recognizer` on an exported network with a CTC head: sound, as it is or normalised, to words."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from s2m3.agents.media.sounds import decode_sound
from s2m3.agents.modules.ports import Config, port
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Array, Network
from s2m3.agents.runtimes.onnx import exported_network
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["ExportedSpeechRecognizer", "HearingSettings", "SpellingSettings", "load_exported_recognizer"]


class HearingSettings(Config):
    """What is done to a sound before the network.

    Args:
        rate: Samples a second.
        normalised: Whether each sound gets the mean 0 and the deviation 1.
        layers: (kernel, stride) of each convolution over the samples.
    """

    rate: int
    normalised: bool
    layers: tuple[tuple[int, int], ...]

    def __call__(self, samples: Array) -> Array:
        """Returns (1, samples) float32.

        Raises:
            BadInputError: The sound is too short for the network's convolutions.
        """
        frames = len(samples)
        for kernel, stride in self.layers:
            frames = (frames - kernel) // stride + 1
            if frames < 1:
                raise BadInputError(f"{len(samples) / self.rate:.4f} s of sound are too short for this network")
        if self.normalised:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return samples[None].astype(np.float32)


class SpellingSettings(Config):
    """How a checkpoint's CTC tokenizer writes tokens.

    Args:
        tokens: The text of each token, by its id.
        blank: The token that stands for nothing.
        delimiter: The token between words, and what is written for it.
        delimiter_text: What is written for it.
        lowers: Whether the text is made lower case.
    """

    tokens: tuple[str, ...]
    blank: str
    delimiter: str
    delimiter_text: str = " "
    lowers: bool = False

    def __call__(self, ids: Sequence[int]) -> str:
        """Returns what ids say, of which equal neighbours count once."""
        found = [token for token, _ in groupby(self.tokens[number] for number in ids)]
        written = [self.delimiter_text if token == self.delimiter else token for token in found if token != self.blank]
        text = "".join(written).strip()
        return text.lower() if self.lowers else text


class ExportedSpeechRecognizer:
    """`audio` (a sound file, at most 30 s) to `text`: the likeliest token of each frame counts."""

    light = False
    max_batch = 1
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Network, hear: HearingSettings, spell: SpellingSettings) -> None:
        self._network, self._hear, self._spell = network, hear, spell
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> Array:
        """Returns the item's samples, (1, samples).

        Raises:
            BadInputError: No sound, or one that is too short for the network.
        """
        return self._hear(decode_sound(port(inputs, "audio", "audio"), self._hear.rate))

    def run(self, batch: Sequence[Array], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [{"text": self._text(samples)} if "text" in wanted else {} for samples in batch]

    def _text(self, samples: Array) -> str:
        (logits,) = self._network(input_values=samples)
        return self._spell(logits[0].argmax(-1).tolist())


def load_exported_recognizer(part: ExportedPart) -> ExportedSpeechRecognizer:
    """Builds class `speech-recognizer` on the exported network.

    Raises:
        ModuleFailedError: A file is missing, or cannot be run.
    """
    network = exported_network(part, "model.onnx")
    return ExportedSpeechRecognizer(
        network, part.settings("hearing", HearingSettings), part.settings("spelling", SpellingSettings)
    )
