"""Class `audio-classifier`: one sound file to the checkpoint's labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.fusion_heads import labels_of
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.scores import scoring
from s2m3.agents.checkpoints.sounds.speech_recognizer import heard
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_extractor
from s2m3.agents.modules.ranking import Floats, answer_of, ranked
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.wire.values import Value

__all__ = ["AudioClassifier", "load_audio_classifier"]

_TOP = 5


class AudioClassifier:
    """`audio` (a sound file, at most 30 s) to `label`, `score` (see scores.py), `ranking` (the best five), `logits`."""

    light = False
    max_batch = 1
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Any, extractor: Any, labels: list[str], scores: Callable[[Floats], Floats]) -> None:
        self._network = network
        self._extractor = extractor
        self._labels, self._scores = labels, scores
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
        results = []
        for features in batch:
            logits: Floats = self._network(**features).logits.float().numpy()
            answer = answer_of(ranked("label", self._labels, self._scores(logits[0]), _TOP), wanted)
            results.append(answer | ({"logits": logits} if "logits" in wanted else {}))
        return results


def load_audio_classifier(opened: CheckpointPart) -> AudioClassifier:
    """Builds class `audio-classifier`.

    Raises:
        ModuleFailedError: Weights, feature extractor or labels do not fit; the text names them.
    """
    network = build_network(opened)
    labels = labels_of(opened, network.config.num_labels)
    return AudioClassifier(network, read_extractor(opened), labels, scoring(opened, len(labels)))
