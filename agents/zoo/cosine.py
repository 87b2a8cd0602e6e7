"""The cosine head: which candidate text is nearest to one text, by their sentence embeddings. numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s2m3.agents.modules.ports import Config, port, read_config, tensor_port
from s2m3.agents.modules.ranking import Floats, answer_of, ranked, unit
from s2m3.agents.zoo.widths import EMBEDDING
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["Cosine", "load_cosine"]


@dataclass(frozen=True)
class Match:
    """One text's embedding (1, 384) and its words; the candidates' embeddings (texts, 384) and their texts."""

    query: Floats
    said: str
    candidates: Floats
    texts: list[str]


class Cosine:
    """Class `cosine`: which candidate text is nearest to one text."""

    nbytes = 0
    light = True
    max_batch = 8

    def prepare(self, inputs: Mapping[str, Value]) -> Match:
        """Returns the item's vectors at length 1, and the texts they stand for."""
        said, texts = port(inputs, "said", "texts"), port(inputs, "text", "texts")
        if len(said) > 1:
            raise BadInputError(f"one text is compared with the candidates, not {len(said)}")
        query = tensor_port(inputs, "query", (1, EMBEDDING))
        candidates = tensor_port(inputs, "candidates", (len(texts), EMBEDDING))
        return Match(unit(query), said[0], unit(candidates), texts)

    def run(self, batch: Sequence[Match], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `label`, `score` (cosine), `ranking` (all candidates) and `said` of each item, as wanted."""
        results = []
        for item in batch:
            outputs = answer_of(ranked("label", item.texts, item.candidates @ item.query[0]), wanted)
            results.append(outputs | ({"said": item.said} if "said" in wanted else {}))
        return results


def load_cosine(spec: ModuleSpec) -> Cosine:
    """Builds class `cosine`, which has no weights."""
    read_config(spec, Config)
    return Cosine()
