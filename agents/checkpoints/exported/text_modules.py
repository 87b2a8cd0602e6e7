"""Classes `text-encoder` and `text-classifier` on exported networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s2m3.agents.checkpoints.exported.tokens import TOKENIZER_FILE, ExportedTokens, TokenSettings, read_tokens
from s2m3.agents.checkpoints.labels import Labels, noted_labels
from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens, unpack
from s2m3.agents.modules.ports import text_port, texts_port
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Array, Network
from s2m3.agents.runtimes.onnx import exported_network
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["ExportedTextClassifier", "ExportedTextEncoder", "load_exported_classifier", "load_exported_encoder"]

_EMBEDDING = "embedding"


@dataclass(frozen=True)
class _Item:
    texts: list[str]
    tokens: list[Tokens]


class ExportedTextEncoder:
    """`text` to `embedding`, a row per text, and the texts again. Rows are remembered; each text runs unpadded.

    Args:
        network: Gives `embedding`.
        tokens: The tokenizer.
        prompt: What stands before every text.
    """

    light = False
    max_batch = 8
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Network, tokens: ExportedTokens, prompt: str = "") -> None:
        self._network, self._tokens, self._prompt = network, tokens, prompt
        self._remembered = EmbeddingCache(self._rows)
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's texts as tokens."""
        texts = texts_port(inputs, "text")
        return _Item(texts, self._tokens([f"{self._prompt}{text}" for text in texts]))

    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        if strange := wanted - {_EMBEDDING, "text"}:
            raise BadInputError(f"the output {min(strange)} of a text encoder is made on nodes that have torch")
        results: list[dict[str, Value]] = [{"text": item.texts} if "text" in wanted else {} for item in batch]
        if _EMBEDDING in wanted:
            for result, rows in zip(results, self._remembered.rows([item.tokens for item in batch]), strict=True):
                result[_EMBEDDING] = rows
        return results

    def _rows(self, ids: Ids) -> Floats:
        (rows,) = self._network(**self._tokens.arrays(ids))
        return rows


class ExportedTextClassifier:
    """`text`, or `text` and `pair`, to `label`, `score` (see labels.py), `ranking` (the best five) and `logits`."""

    light = False
    max_batch = 8
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Network, tokens: ExportedTokens, labels: Labels, *, paired: bool) -> None:
        self._network, self._tokens, self._labels, self._paired = network, tokens, labels, paired
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, Array]:
        """Returns the item's tokens, (1, tokens) each."""
        pairs = [text_port(inputs, "pair")] if self._paired else None
        return self._tokens.arrays(unpack(self._tokens([text_port(inputs, "text")], pairs)))

    def run(self, batch: Sequence[dict[str, Array]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item, each text at its true length."""
        return [self._labels.answer(self._network(**tokens)[0], wanted) for tokens in batch]


def _tokens_of(part: ExportedPart) -> ExportedTokens:
    return read_tokens(part.file(TOKENIZER_FILE), part.settings("tokens", TokenSettings))


def load_exported_encoder(part: ExportedPart) -> ExportedTextEncoder:
    """Builds class `text-encoder` on the exported network.

    Raises:
        ModuleFailedError: A file is missing, or cannot be run.
    """
    return ExportedTextEncoder(exported_network(part, "model.onnx"), _tokens_of(part), str(part.note("prompt")))


def load_exported_classifier(part: ExportedPart) -> ExportedTextClassifier:
    """Builds class `text-classifier` on the exported network.

    Raises:
        ModuleFailedError: A file is missing, or cannot be run.
    """
    network = exported_network(part, "model.onnx")
    return ExportedTextClassifier(network, _tokens_of(part), noted_labels(part), paired=bool(part.note("paired")))
