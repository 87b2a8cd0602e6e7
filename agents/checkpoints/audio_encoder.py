"""Class `audio-encoder`: one sound file to what an audio tower makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.networks import build_network
from s2m3.agents.checkpoints.outputs import Asked, asked_outputs, take
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.preprocessing import read_extractor
from s2m3.agents.media.sounds import decode_sound
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.wire.values import Value

__all__ = ["AudioEncoder", "load_audio_encoder"]

#: What feature extractors make; anything else (attention masks) the towers do not take.
_FEATURES = ("input_features", "is_longer")


class AudioEncoder:
    """`audio` (a sound file, at most 30 s) to the table's outputs.

    A sound longer than the extractor's own window is cut there: some extractors would pick a random piece instead.
    """

    #: Its matrices are large already: a batch takes as long as its items one after another.
    light = False
    max_batch = 1

    def __init__(self, network: Any, extractor: Any, asked: Mapping[str, Asked]) -> None:
        self._network = network
        self._extractor = extractor
        self._asked = asked
        self._samples = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
        """Returns the item's features."""
        rate = self._extractor.sampling_rate
        samples = decode_sound(port(inputs, "audio", "audio"), rate)[: self._samples]
        features = self._extractor(samples, sampling_rate=rate, return_tensors="pt")
        return {name: features[name] for name in _FEATURES if name in features}

    @torch.inference_mode()
    def run(self, batch: Sequence[dict[str, torch.Tensor]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [{**take(self._asked, self._network(**features), wanted)} for features in batch]


def load_audio_encoder(opened: CheckpointPart) -> AudioEncoder:
    """Builds class `audio-encoder`.

    Raises:
        ModuleFailedError: Weights or feature extractor do not fit; the text names them.
    """
    return AudioEncoder(build_network(opened), read_extractor(opened), asked_outputs(opened))
