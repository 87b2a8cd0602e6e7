"""Class `audio-classifier`: one sound file to the checkpoint's labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.labels import Labels, read_labels
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.sounds.features import heard
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_extractor
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.wire.values import Value

__all__ = ["AudioClassifier", "load_audio_classifier"]


class AudioClassifier:
    """`audio` (a sound file, at most 30 s) to `label`, `score` (see labels.py), `ranking` (the best five), `logits`."""

    light = False
    max_batch = 1
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Any, extractor: Any, labels: Labels) -> None:
        self._network = network
        self._extractor = extractor
        self._labels = labels
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
        """Returns the item's features, as the pipeline `audio-classification` gives them to the network.

        Raises:
            BadInputError: No sound, or one that is too short for the network.
        """
        return heard(self._network, self._extractor, inputs)

    @torch.inference_mode()
    def run(self, batch: Sequence[dict[str, torch.Tensor]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [self._labels.answer(self._network(**features).logits.float().numpy(), wanted) for features in batch]


def load_audio_classifier(opened: CheckpointPart) -> AudioClassifier:
    """Builds class `audio-classifier`.

    Raises:
        ModuleFailedError: Weights, feature extractor or labels do not fit; the text names them.
    """
    network = build_network(opened)
    return AudioClassifier(network, read_extractor(opened), read_labels(opened, network.config.num_labels))
