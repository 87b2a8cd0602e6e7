"""Class `speech-recognizer`: one sound file to the words that a network with a CTC head hears in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.sounds.features import heard
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_extractor, read_tokenizer
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.wire.values import Value

__all__ = ["SpeechRecognizer", "load_speech_recognizer"]


class SpeechRecognizer:
    """`audio` (a sound file, at most 30 s) to `text`, as the pipeline `automatic-speech-recognition` writes it.

    The likeliest token of each frame counts; the checkpoint's tokenizer joins them. A language model that lies beside
    the checkpoint is not used.
    """

    #: A sound is read at its true length: what it says does not depend on others.
    light = False
    max_batch = 1
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Any, extractor: Any, tokenizer: Any) -> None:
        self._network = network
        self._extractor = extractor
        self._tokenizer = tokenizer
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
        """Returns the item's features and their mask.

        Raises:
            BadInputError: No sound, or one that is too short for the network.
        """
        features = heard(self._network, self._extractor, inputs, return_attention_mask=True)
        return {name: features[name] for name in (self._network.main_input_name, "attention_mask")}

    @torch.inference_mode()
    def run(self, batch: Sequence[dict[str, torch.Tensor]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [{"text": self._text(features)} if "text" in wanted else {} for features in batch]

    def _text(self, features: dict[str, torch.Tensor]) -> str:
        logits = self._network(**features).logits
        text: str = self._tokenizer.decode(logits[0].argmax(-1).tolist(), skip_special_tokens=False)
        return text


def load_speech_recognizer(opened: CheckpointPart) -> SpeechRecognizer:
    """Builds class `speech-recognizer`.

    Raises:
        ModuleFailedError: Weights, feature extractor or tokenizer do not fit; the text names them.
    """
    return SpeechRecognizer(build_network(opened), read_extractor(opened), read_tokenizer(opened))
