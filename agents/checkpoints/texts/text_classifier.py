"""Class `text-classifier`: a text, or two that are compared, to the checkpoint's labels, alone or behind a step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.labels import Labels, read_labels
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.texts.tokenized_texts import TokenizedTexts
from s2m3.agents.embedding_cache import unpack
from s2m3.agents.modules.ports import text_port
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.wire.values import Value

__all__ = ["TextClassifier", "load_text_classifier"]


class TextClassifier:
    """`text`, or `text` and `pair`, to `label`, `score` (see labels.py), `ranking` (the best five) and `logits`."""

    light = False
    max_batch = 8
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Any, tokenize: TokenizedTexts, labels: Labels, *, paired: bool = False) -> None:
        self._paired = paired
        self._network = network
        self._tokenize = tokenize
        self._labels = labels
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
        """Returns the item's tokens, (1, tokens) each."""
        pairs = [text_port(inputs, "pair")] if self._paired else None
        tokens = self._tokenize([text_port(inputs, "text")], pairs)
        return self._tokenize.tensors(unpack(tokens))

    @torch.inference_mode()
    def run(self, batch: Sequence[dict[str, torch.Tensor]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item, each text at its true length."""
        return [self._labels.answer(self._network(**tokens).logits.numpy(), wanted) for tokens in batch]


def load_text_classifier(opened: CheckpointPart) -> TextClassifier:
    """Builds class `text-classifier`.

    Raises:
        ModuleFailedError: Weights, tokenizer or labels do not fit; the text names them.
    """
    network = build_network(opened)
    tokenize = TokenizedTexts(opened, network)
    labels = read_labels(opened, network.config.num_labels)
    return TextClassifier(network, tokenize, labels, paired="pair" in opened.part.inputs)
