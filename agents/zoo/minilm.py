"""all-MiniLM-L6-v2 as a text encoder: texts to unit vectors, each at its true length, repeated ones from a cache.

Model: Wang et al., MiniLM, NeurIPS 2020; the pooling and the 256-token limit are sentence-transformers' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens, check_tokens, pack
from s2m3.agents.modules.ports import Config, read_config, texts_port
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.modules.state_dicts import fill, nbytes_of, read_safetensors
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["SentenceEncoder", "load_encoder"]

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

    def __init__(self, network: nn.Module, tokenizer: Tokenizer) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._remembered = EmbeddingCache(self._forward)
        self.nbytes = nbytes_of(network)

    @property
    def hits(self) -> int:
        """Embeddings that did not have to be computed again, so far."""
        return self._remembered.hits

    def prepare(self, inputs: Mapping[str, Value]) -> Texts:
        """Returns the item's texts as tokens, each cut after 256; raises BadInputError if they are too many."""
        texts = texts_port(inputs, "text")
        encoded = self._tokenizer.encode_batch_fast(texts)
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

    @torch.inference_mode()
    def _forward(self, ids: Ids) -> Floats:
        """Returns (texts, 384) for texts of one length: the mean over the tokens, at length 1."""
        hidden = self._network(input_ids=torch.from_numpy(ids)).last_hidden_state
        vectors: Floats = nn.functional.normalize(hidden.mean(1), dim=-1).numpy()
        return vectors


def _read_tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    return tokenizer


def load_encoder(spec: ModuleSpec) -> SentenceEncoder:
    """Builds class `sentence-encoder`: the checkpoint without its pooler, which sentence embeddings do not use.

    Raises:
        ModuleFailedError: A file is missing or damaged, or weights are missing; the detail names them.
    """
    read_config(spec, Config)
    folder = wheel_file(spec.source, "model/model.safetensors").parent
    try:
        config = BertConfig.from_json_file(folder / "config.json")
    except (OSError, ValueError) as error:
        raise ModuleFailedError(f"config.json of {spec.source} cannot be read: {error}") from error
    network = BertModel(config, add_pooling_layer=False)
    weights = read_safetensors(
        folder / "model.safetensors",
        lambda key: not key.startswith("pooler.") and key != "embeddings.position_ids",
    )
    fill(network, weights, spec.id, spec.dtype)
    return SentenceEncoder(network, _read_tokenizer(folder / "tokenizer.json"))
