"""Class `audio-encoder`: one sound file to what an audio tower makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.networks.loading import build_network, taken_by
from s2m3.agents.checkpoints.networks.outputs import Asked, asked_outputs, take
from s2m3.agents.checkpoints.sounds.features import heard
from s2m3.agents.checkpoints.sounds.windows import Windows
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_extractor
from s2m3.agents.media.sounds import MAX_SECONDS_IN_WINDOWS, decode_sound
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.serving.module import MANY
from s2m3.schemas.wire.values import Value

__all__ = ["AudioEncoder", "load_audio_encoder"]

#: What feature extractors make; anything else (attention masks) the towers do not take.
Features = dict[str, torch.Tensor]
_FEATURES = ("input_features", "is_longer")


class AudioEncoder:
    """`audio` (a sound file, at most 30 s) to the table's outputs.

    A sound longer than the extractor's own window is cut there: some extractors would pick a random piece instead. If
    the table says `windows` and the checkpoint's tokenizer can join their texts, it is heard in as many windows as it
    takes, up to 10 minutes: one row of outputs for each.
    """

    #: Its matrices are large already: a batch takes as long as its items one after another.
    light = False
    max_batch = 1
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Any, extractor: Any, asked: Mapping[str, Asked], windows: Windows | None) -> None:
        self._network = network
        self._extractor = extractor
        self._asked = asked
        self._samples = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
        self._windows = windows
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> list[Features]:
        """Returns the item's features, window by window."""
        rate, given = self._extractor.sampling_rate, port(inputs, "audio", "audio")
        if self._windows is None:
            return [self._features(decode_sound(given, rate)[: self._samples])]
        return [self._features(piece) for piece in self._windows.cut(decode_sound(given, rate, MAX_SECONDS_IN_WINDOWS))]

    def _features(self, samples: Any) -> Features:
        features = self._extractor(samples, sampling_rate=self._extractor.sampling_rate, return_tensors="pt")
        return {name: features[name] for name in _FEATURES if name in features}

    @torch.inference_mode()
    def run(self, batch: Sequence[list[Features]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item, one row for each window."""
        return [self._heard(windows, wanted) for windows in batch]

    def _heard(self, windows: list[Features], wanted: frozenset[str]) -> dict[str, Value]:
        rows = []
        for features in windows:
            between_slices()
            rows.append(take(self._asked, self._network(**features), wanted))
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


class SpeechEncoder(AudioEncoder):
    """The encoder of a network that transformers cuts: `audio` (at most 30 s) to what its `get_encoder()` gives."""

    def __init__(self, network: Any, extractor: Any, asked: Mapping[str, Asked]) -> None:
        super().__init__(network.get_encoder(), extractor, asked, None)
        self._whole = network
        self._taken = taken_by(self._network)

    def prepare(self, inputs: Mapping[str, Value]) -> list[Features]:
        """Returns the item's features.

        Raises:
            BadInputError: No sound, or one that is too short for the network.
        """
        features = heard(self._whole, self._extractor, inputs)
        return [{name: tensor for name, tensor in features.items() if name in self._taken}]


def load_audio_encoder(opened: CheckpointPart) -> AudioEncoder:
    """Builds class `audio-encoder`.

    Raises:
        ModuleFailedError: Weights or feature extractor do not fit; the text names them.
    """
    if opened.part.without:
        return SpeechEncoder(build_network(opened), read_extractor(opened), asked_outputs(opened))
    windows = Windows.if_joined(opened) if opened.part.options.get("windows") else None
    return AudioEncoder(build_network(opened), read_extractor(opened), asked_outputs(opened), windows)
