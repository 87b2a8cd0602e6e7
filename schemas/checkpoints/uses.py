"""What a checkpoint is for where one architecture serves for several things, as its folder says. Pure.

A classifier of texts may give a text one of its classes, compare two texts, or rank texts by how well each fits a
query; a network without a head may be a sentence encoder.
"""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.checkpoints.sentence_folders import SENTENCE, pools

__all__ = ["said_use"]

#: Labels that say that a classifier compares two texts.
_COMPARING = frozenset(
    {
        "entailment",
        "contradiction",
        "not_entailment",
        "neutral",
        "equivalent",
        "not_equivalent",
        "duplicate",
        "paraphrase",
    }
)


def said_use(config: Mapping[str, Any], name: str) -> str:
    """Returns the `use` that a folder says: `embedding`, `ranking` or `pair`; empty where it says none.

    Args:
        config: What read_config gives.
        name: Of the architecture.
    """
    if pools(config):
        return "embedding"
    if not name.endswith("ForSequenceClassification"):
        return ""
    labels = config.get("id2label")
    named = {str(label).lower() for label in labels.values()} if isinstance(labels, Mapping) else set()
    count = len(labels) if isinstance(labels, Mapping) else config.get("num_labels", 2)
    if _is_cross_encoder(config):
        return "ranking" if count == 1 else "pair"
    return "pair" if named & _COMPARING else ""


def _is_cross_encoder(config: Mapping[str, Any]) -> bool:
    own = config.get("sentence_transformers")
    says = isinstance(own, Mapping) and "activation_fn" in own
    kind = config.get(SENTENCE, {}).get("settings", {}).get("model_type")
    return says or "sbert_ce_default_activation_function" in config or kind == "CrossEncoder"
