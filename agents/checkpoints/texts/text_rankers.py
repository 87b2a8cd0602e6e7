"""Classes `text-ranker`, `text-similarity` and `zero-shot-classifier`: how well each of several texts fits one text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.texts.sentences import build_sentence_network, prompt_of
from s2m3.agents.checkpoints.texts.tokenized_texts import TokenizedTexts
from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens
from s2m3.agents.modules.ports import Config, read_config, text_port, texts_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, sigmoid, softmax, unit
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.checkpoints.sentence_folders import SENTENCE
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["TextRanker", "load_text_ranker", "load_text_similarity", "load_zero_shot_classifier"]

Scores = Callable[[Floats], Floats]


@dataclass(frozen=True)
class _Item:
    texts: list[str]
    tokens: list[Tokens]


class TextRanker:
    """One text and several others to `label`, `score` and `ranking` (all of them), and `logits` where there are some.

    Each text, or pair of texts, runs at its true length: its score does not depend on those beside it.

    Args:
        network: Gives one row per text or pair.
        ports: The inputs: the one text, the several ones.
        tokenize: (one text, several ones) -> tokens of each row of the network.
        forward: Rows of texts of one length.
        scores: Rows -> one score per text.
    """

    light = False
    max_batch = 8
    prepares_at_once = 1
    repeatable = True

    def __init__(
        self,
        network: Any,
        ports: tuple[str, str],
        tokenize: Callable[[str, list[str]], list[Tokens]],
        forward: Callable[[Ids], Floats],
        scores: Scores,
    ) -> None:
        self._one, self._several = ports
        self._tokenize, self._scores = tokenize, scores
        self._remembered = EmbeddingCache(forward)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's texts, and the tokens of each row; raises BadInputError as texts_port and check_tokens."""
        texts = texts_port(inputs, self._several)
        return _Item(texts, self._tokenize(text_port(inputs, self._one), texts))

    @torch.inference_mode()
    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        rows = self._remembered.rows([item.tokens for item in batch])
        scores = [self._scores(found) for found in rows]
        return [
            answer_of(ranked("label", item.texts, found), wanted) for item, found in zip(batch, scores, strict=True)
        ]


def _logits(network: Any, tokenize: TokenizedTexts) -> Callable[[Ids], Floats]:
    """Returns a classifier's forward pass; one without a padding token cannot tell where the rows of a batch end."""
    together = network.config.pad_token_id is not None

    def forward(packed: Ids) -> Floats:
        pieces = [packed] if together else np.split(packed, len(packed))
        found = [network(**tokenize.tensors(np.array(piece))).logits.numpy() for piece in pieces]
        return np.concatenate(found)

    return forward


def load_text_ranker(opened: CheckpointPart) -> TextRanker:
    """Builds class `text-ranker`: a cross-encoder of one number, read as sentence-transformers' CrossEncoder reads it.

    Raises:
        ModuleFailedError: Weights, tokenizer or the activation do not fit; the text names them.
    """
    read_config(opened.spec, Config)
    network = build_network(opened)
    tokenize = TokenizedTexts(opened, network)
    if network.config.num_labels != 1:
        raise ModuleFailedError(f"module {opened.spec.id}: a ranking takes one number, not {network.config.num_labels}")
    activate = _activation(opened)

    def pairs(query: str, texts: list[str]) -> list[Tokens]:
        return tokenize([query] * len(texts), texts)

    return TextRanker(network, ("query", "text"), pairs, _logits(network, tokenize), lambda rows: activate(rows[:, 0]))


def _activation(opened: CheckpointPart) -> Scores:
    """Returns what makes scores of logits: as the folder says, else a sigmoid."""
    settings = f"{SENTENCE}.settings.activation_fn"
    keys = ("sentence_transformers.activation_fn", "sbert_ce_default_activation_function", settings)
    name = str(opened.value(*keys) or "Sigmoid").rpartition(".")[2]
    known: dict[str, Scores] = {"Sigmoid": sigmoid, "Identity": lambda logits: logits}
    if name not in known:
        raise ModuleFailedError(f"module {opened.spec.id}: the activation {name} of its scores is not known")
    return known[name]


def load_text_similarity(opened: CheckpointPart) -> TextRanker:
    """Builds class `text-similarity`: one text against several by their embeddings, by cosine or dot product.

    The one text gets the folder's prompt `query`, the others its prompt `document`, where there are such prompts.

    Raises:
        ModuleFailedError: Weights, tokenizer or the folder's settings do not fit; the text names them.
    """
    network = build_sentence_network(opened)
    tokenize = TokenizedTexts(opened, network)
    query, document = (prompt_of(opened, name) for name in ("query", "document"))
    kind = opened.value(f"{SENTENCE}.settings.similarity_fn_name") or "cosine"
    if kind not in ("cosine", "dot"):
        raise ModuleFailedError(f"module {opened.spec.id}: the similarity {kind!r} is not known")

    def embedded(packed: Ids) -> Floats:
        rows: Floats = network(**tokenize.tensors(packed)).sentence_embedding.numpy()
        return rows

    def scores(rows: Floats) -> Floats:
        found = unit(rows) if kind == "cosine" else rows
        fits: Floats = found[1:] @ found[0]
        return fits

    def tokens(text: str, texts: list[str]) -> list[Tokens]:
        return tokenize([f"{query}{text}", *(f"{document}{other}" for other in texts)])

    return TextRanker(network, ("query", "text"), tokens, embedded, scores)


class _ZeroShotConfig(Config):
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False


def load_zero_shot_classifier(opened: CheckpointPart) -> TextRanker:
    """Builds class `zero-shot-classifier`: which label a text entails, as transformers' pipeline says it.

    Raises:
        ModuleFailedError: Weights or tokenizer do not fit, or the template has no place for a label.
    """
    config = read_config(opened.spec, _ZeroShotConfig)
    if "{}" not in config.hypothesis_template:
        raise ModuleFailedError(f"module {opened.spec.id}: config.hypothesis_template has no {{}} for the label")
    network = build_network(opened)
    tokenize = TokenizedTexts(opened, network)
    names = {str(name).lower(): number for name, number in network.config.label2id.items()}
    entailed = next((number for name, number in names.items() if name.startswith("entail")), -1)
    opposite = -1 if entailed == 0 else 0

    def scores(rows: Floats) -> Floats:
        if config.multi_label or len(rows) == 1:
            return softmax(rows[:, [opposite, entailed]])[:, 1]
        return softmax(rows[:, entailed])

    def pairs(text: str, labels: list[str]) -> list[Tokens]:
        said = [config.hypothesis_template.format(label) for label in labels]
        return tokenize([text] * len(labels), said, cut="only_first")

    return TextRanker(network, ("text", "labels"), pairs, _logits(network, tokenize), scores)
