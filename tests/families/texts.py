"""The rows of texts that are not generated: sentence encoders, cross-encoders, natural language inference, classes."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import transformers as t
from safetensors.torch import load_file, save_file
from tokenizers import processors

from tests.families.dual import bert_words, gemma_words, ranked, xlm_words
from tests.families.family import Family
from tests.families.speech import randomised

__all__ = ["TEXTS"]

_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER = {**_TOWER, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
_POOLING = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_SAYINGS = ["a cat sits on the moon", "photos of Cats", "the lake is quiet and very wide indeed", "x"]
_LONG = "a photo of " + "many " * 60 + "things"
_MEANINGS = [{"text": _SAYINGS}, {"text": [_LONG, *_SAYINGS[2:]]}]
_QUERIES = [
    {"query": "where is the cat", "text": _SAYINGS},
    {"query": "what is a quiet lake", "text": [_LONG, *_SAYINGS[1:]]},
]
_PAIRS = [
    {"text": "a cat sits on the moon", "pair": "the moon is quiet"},
    {"text": _LONG, "pair": "there are cats and things"},
]


def _write(file: Path, document: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(document))


def _steps(folder: Path, pooling: str, *others: str, **settings: Any) -> None:
    """Writes what sentence-transformers writes beside a network: its steps, how it pools, its prompts."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | {other: other.partition("_")[2] for other in others}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    _write(folder / "modules.json", modules)
    modes = {f"pooling_mode_{mode}": mode == pooling for mode in _POOLING}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **modes, "include_prompt": True})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 38, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None, **settings})


def _make_bert_mean(folder: Path) -> None:
    """As all-MiniLM: mean of the tokens, at length 1."""
    config = t.BertConfig(**_TOWER, vocab_size=bert_words(folder, 40), max_position_embeddings=40)
    randomised(t.BertModel(config), folder)
    _steps(folder, "mean_tokens", "2_Normalize")


def _make_xlm_cls(folder: Path) -> None:
    """As BGE-M3: the first token, at length 1."""
    marks = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = t.XLMRobertaConfig(**_TOWER, vocab_size=xlm_words(folder, 38), max_position_embeddings=40, **marks)
    randomised(t.XLMRobertaModel(config), folder)
    _steps(folder, "cls_token", "2_Normalize")


def _make_mpnet(folder: Path) -> None:
    """As multi-qa-mpnet: its architecture is named by the head that it was trained with, its tensors are not."""
    words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{word}" for word in words[5:]]
    vocabulary = {word: number for number, word in enumerate(words)}
    t.MPNetTokenizer(vocabulary, model_max_length=38).save_pretrained(folder)
    config = t.MPNetConfig(**_TOWER, vocab_size=len(words), max_position_embeddings=40)
    randomised(t.MPNetModel(config), folder)
    given = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", {**given, "architectures": ["MPNetForMaskedLM"]})
    _steps(folder, "mean_tokens")


def _make_qwen3(folder: Path) -> None:
    """As Qwen3-Embedding: a causal network's last token, which is an end mark; queries have an instruction."""
    words = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    tokenizer = t.Qwen2Tokenizer(
        {word: number for number, word in enumerate(words)}, [], padding_side="left", model_max_length=40,
        unk_token=words[0],
    )  # fmt: skip
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A <|endoftext|> $B <|endoftext|>", special_tokens=[(words[0], 0)]
    )
    tokenizer.save_pretrained(folder)
    config = t.Qwen3Config(**_DECODER, vocab_size=len(words), pad_token_id=0, eos_token_id=0, bos_token_id=None)
    randomised(t.Qwen3Model(config), folder)
    given = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", {**given, "architectures": ["Qwen3ForCausalLM"]})
    _steps(folder, "lasttoken", "2_Normalize", prompts={"query": "find: ", "document": ""}, similarity_fn_name="cosine")


def _make_gemma(folder: Path) -> None:
    """As EmbeddingGemma: attention both ways, the mean, two linear layers, length 1."""
    words = gemma_words(folder, model_max_length=60)
    config = t.Gemma3TextConfig(
        **_DECODER, vocab_size=words, use_bidirectional_attention=True, sliding_window=8, pad_token_id=0,
        eos_token_id=1, bos_token_id=2, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    randomised(t.Gemma3TextModel(config), folder)
    prompts = {"query": "task: search | query: ", "document": "title: none | text: "}
    _steps(folder, "mean_tokens", "2_Dense", "3_Dense", "4_Normalize", prompts=prompts)
    random = torch.Generator().manual_seed(4)
    for path, wide, out in (("2_Dense", 32, 48), ("3_Dense", 48, 24)):
        linear = "torch.nn.modules.linear.Identity"
        said = {"in_features": wide, "out_features": out, "bias": False, "activation_function": linear}
        _write(folder / path / "config.json", said)
        weight = torch.empty(out, wide).normal_(0, 0.3, generator=random)
        save_file({"linear.weight": weight}, folder / path / "model.safetensors")


def _classes(folder: Path, kind: str, labels: list[str], **how: Any) -> None:
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    words = bert_words(folder, 40)
    config = getattr(t, f"{kind}Config")(**_TOWER, vocab_size=words, max_position_embeddings=40, **named, **how)
    randomised(getattr(t, f"{kind}ForSequenceClassification")(config), folder)


def _make_cross_encoder(folder: Path) -> None:
    sigmoid = "torch.nn.modules.activation.Sigmoid"
    _classes(folder, "Bert", ["LABEL_0"], sbert_ce_default_activation_function=sigmoid)


def _make_nli(folder: Path) -> None:
    _classes(folder, "Bert", ["contradiction", "entailment", "neutral"])


def _make_classes(folder: Path) -> None:
    _classes(folder, "Electra", ["joy", "anger", "fear", "calm"])


@cache
def _model(folder: Path) -> Any:
    return t.AutoModel.from_pretrained(folder).eval()


@cache
def _pipeline(folder: Path, task: str) -> Any:
    return t.pipeline(task, model=str(folder))


def _tokens(folder: Path, *texts: Any, **how: Any) -> Any:
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    return tokenizer(*texts, padding=True, truncation=True, return_tensors="pt", **how)


# How the texts of one padded batch are pooled, as the models' cards say.


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    wide = mask.unsqueeze(-1).expand(hidden.size()).float()
    return (hidden * wide).sum(1) / wide.sum(1).clamp(min=1e-9)


def _first(hidden: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask[:, -1].sum() == mask.shape[0]:  # padded on the left
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden)), mask.sum(dim=1) - 1]


def _embeds(
    pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *, unit: bool = True, dense: bool = False
) -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    def embed(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
        given = _tokens(folder, inputs["text"], max_length=38)
        found = pool(_model(folder)(**given).last_hidden_state, given["attention_mask"])
        for path in ("2_Dense", "3_Dense") if dense else ():
            found = found @ load_file(folder / path / "model.safetensors")["linear.weight"].T
        return {"embedding": (F.normalize(found, p=2, dim=1) if unit else found).numpy()}

    return embed


def _reranked(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    network = t.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    given = _tokens(folder, [inputs["query"]] * len(inputs["text"]), inputs["text"])
    return ranked(inputs["text"], torch.sigmoid(network(**given).logits.view(-1)))


def _answered(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {**found[0], "ranking": found}


def _inferred(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    given = {"text": inputs["text"], "text_pair": inputs["pair"]}
    return _answered(_pipeline(folder, "text-classification")(given, top_k=None, truncation=True))


def _classified(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    return _answered(_pipeline(folder, "text-classification")(inputs["text"], top_k=None, truncation=True))


TEXTS = [
    Family("bert-mean", "text", _make_bert_mean, _MEANINGS, _embeds(_mean)),
    Family("xlm-r-cls", "text", _make_xlm_cls, _MEANINGS, _embeds(_first)),
    Family("mpnet", "text", _make_mpnet, _MEANINGS, _embeds(_mean, unit=False)),
    Family("qwen3-embedding", "text", _make_qwen3, _MEANINGS, _embeds(_last)),
    Family("embedding-gemma", "text", _make_gemma, _MEANINGS, _embeds(_mean, dense=True)),
    Family("cross-encoder", "text", _make_cross_encoder, _QUERIES, _reranked),
    Family("nli", "text", _make_nli, _PAIRS, _inferred),
    Family("text-classifier", "text", _make_classes, [{"text": _SAYINGS[0]}, {"text": _LONG}], _classified),
]
