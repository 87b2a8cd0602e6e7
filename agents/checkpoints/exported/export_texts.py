"""What of classes `text-encoder` and `text-classifier` is exported. Needs torch and transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from s2m3.agents.checkpoints.exported.networks import output_network
from s2m3.agents.checkpoints.exported.tokens import TOKENIZER_FILE, ExportedTokens
from s2m3.agents.checkpoints.labels import read_labels
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.networks.outputs import Asked, asked_outputs
from s2m3.agents.checkpoints.scores import scoring_name
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.texts.sentences import build_sentence_network, prompt_of
from s2m3.agents.checkpoints.texts.text_classifier import TextClassifier
from s2m3.agents.checkpoints.texts.text_encoder import TextEncoder
from s2m3.agents.checkpoints.texts.tokenized_texts import TokenizedTexts
from s2m3.agents.embedding_cache import unpack
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork, Sample
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["export_classifier", "export_encoder"]

#: Texts of several lengths, scripts and shapes; the last one is cut by most checkpoints.
_TEXTS = (
    "a photo of a cat on a red mat",
    "Wo ist die Küche? Das Licht bleibt an …",
    "IL EST MIDI: 12,5 km/h & más!",
    "今日は天気がいい 🐈‍⬛",
    "x",
    "  two  spaces\nand a line\t",
    "who sits there " * 200,
)
#: What people say to a house, and see: neighbours that int8 may confuse.
_RANKED = tuple(
    text
    for thing in (
        "kitchen light",
        "heating",
        "front door",
        "radio",
        "cat",
        "dog",
        "red car",
        "parcel",
        "coffee",
        "child",
    )
    for text in (f"turn on the {thing}", f"turn off the {thing}", f"a photo of a {thing}", f"is the {thing} there?")
)


def export_encoder(opened: CheckpointPart) -> tuple[TextEncoder, Export]:
    """Returns a part of class `text-encoder`, run by torch, and what goes into its exported part.

    Raises:
        ModuleFailedError: Weights or tokenizer do not fit, or are of a kind that is not exported.
    """
    if "hidden" in opened.part.inputs or "embedding" not in opened.part.outputs:
        raise ModuleFailedError("a text encoder that gives no embedding of texts alone is run by torch alone")
    is_sentence = opened.option("pooling") == "folder"
    network = build_sentence_network(opened) if is_sentence else build_network(opened)
    prompt = prompt_of(opened) if is_sentence else ""
    asked, tokenize = asked_outputs(opened), TokenizedTexts(opened, network)
    module = TextEncoder(network, tokenize, asked, crosses=False, prompt=prompt)
    made = _export(network, tokenize, {"embedding": asked["embedding"]}, {"prompt": prompt}, paired=False)
    items: list[dict[str, Any]] = [{"text": list(_TEXTS)}, {"text": [_TEXTS[0]]}]
    ranked: list[dict[str, Any]] = [{"text": [text]} for text in _RANKED]
    return module, Export(made.networks, made.files, made.notes, items, frozenset({"embedding"}), ranked)


def export_classifier(opened: CheckpointPart) -> tuple[TextClassifier, Export]:
    """Returns a part of class `text-classifier`, run by torch, and what goes into its exported part.

    Raises:
        ModuleFailedError: Weights, tokenizer or labels do not fit, or are of a kind that is not exported.
    """
    network = build_network(opened)
    tokenize, labels = TokenizedTexts(opened, network), read_labels(opened, network.config.num_labels)
    paired = "pair" in opened.part.inputs
    module = TextClassifier(network, tokenize, labels, paired=paired)
    notes = {"paired": paired, "labels": labels.names, "scoring": scoring_name(opened, len(labels.names))}
    made = _export(network, tokenize, {"logits": Asked("logits", None, 0)}, notes, paired=paired)
    items, ranked = (
        [{"text": text, **({"pair": _TEXTS[0]} if paired else {})} for text in of] for of in (_TEXTS, _RANKED)
    )
    return module, Export(made.networks, made.files, made.notes, items, frozenset({"logits"}), ranked)


def _export(
    network: Any, tokenize: TokenizedTexts, asked: Mapping[str, Asked], notes: Mapping[str, Any], *, paired: bool
) -> Export:
    settings, file = tokenize.exported()
    tokens = ExportedTokens(Tokenizer.from_str(file.decode()), settings)
    pairs = [_TEXTS[0]] * len(_TEXTS) if paired else None
    wanted = tokenize(_TEXTS, pairs)
    if tokens(_TEXTS, pairs) != wanted:
        raise ModuleFailedError("the tokens of its tokenizer cannot be made without transformers")
    free: dict[str, list[int]] = {name: [0] if settings.padded else [0, 1] for name in settings.names}
    exported = ExportedNetwork(output_network(network, settings.names, asked), _samples(tokens, wanted), free)
    return Export({"model": exported}, {TOKENIZER_FILE: file}, {**notes, "tokens": settings.model_dump(mode="json")})


def _samples(tokens: ExportedTokens, texts: Sequence[bytes]) -> list[Sample]:
    """Returns inputs of different lengths: of single texts, and of three texts of one length."""
    single = [tokens.arrays(unpack([text])) for text in texts]
    return [*single, {name: np.repeat(array, 3, axis=0) for name, array in single[0].items()}]
