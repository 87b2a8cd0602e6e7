"""all-MiniLM-L6-v2 as a text encoder: texts to unit vectors, each at its true length, repeated ones from a cache.

Model: Wang et al., MiniLM, NeurIPS 2020; the pooling and the 256-token limit are sentence-transformers' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens, check_tokens, pack
from s2m3.agents.modules.ports import texts_port
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Network
from s2m3.schemas.wire.values import Value

__all__ = ["SentenceEncoder", "load_exported", "read_tokenizer"]

#: Tokens kept of a text, the two marks included.
_MAX_TOKENS = 256


@dataclass(frozen=True)
class Texts:
    """An item's texts, and the tokens of each."""

    texts: list[str]
    tokens: list[Tokens]


class SentenceEncoder:
    """Class `sentence-encoder`: `text` (texts) to `embedding` (texts, 384) float32 of unit length, and the texts again.

    No padding: texts of equal token count run together, so an embedding does not depend on its batch mates.
    """

    light = False
    max_batch = 8
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Network, tokenizer: Tokenizer) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self._remembered = EmbeddingCache(self._forward)
        self.nbytes = network.nbytes

    @property
    def hits(self) -> int:
        """Embeddings that did not have to be computed again, so far."""
        return self._remembered.hits

    def prepare(self, inputs: Mapping[str, Value]) -> Texts:
        """Returns the item's texts as tokens, each cut after 256; raises BadInputError if they are too many."""
        texts = texts_port(inputs, "text")
        encoded = self.tokenizer.encode_batch_fast(texts)
        tokens = [pack(one.ids) for one in encoded]
        check_tokens(tokens)
        return Texts(texts, tokens)

    def run(self, batch: Sequence[Texts], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `embedding` and `text` of each item, as wanted."""
        results: list[dict[str, Value]] = [{"text": item.texts} if "text" in wanted else {} for item in batch]
        if "embedding" in wanted:
            for result, rows in zip(results, self._remembered.rows([item.tokens for item in batch]), strict=True):
                result["embedding"] = rows
        return results

    def _forward(self, ids: Ids) -> Floats:
        """Returns (texts, 384) for texts of one length: the mean over the tokens, at length 1."""
        (vectors,) = self.network(input_ids=ids)
        return vectors


def read_tokenizer(path: Path) -> Tokenizer:
    """Returns a tokenizer that does not pad, and cuts what is too long."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    return tokenizer


def load_exported(part: ExportedPart) -> SentenceEncoder:
    """Builds class `sentence-encoder` on the exported network.

    Raises:
        ModuleFailedError: A file is missing or cannot be run.
    """
    from s2m3.agents.runtimes.onnx import exported_network  # noqa: PLC0415  # torch agents need not have it

    return SentenceEncoder(exported_network(part, "model.onnx"), read_tokenizer(part.file("tokenizer.json")))
