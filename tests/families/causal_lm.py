"""Causal language models: a chat by the folder's template, as the model cards say, and a text that is continued."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.checkpoints.tiny import WORDS
from tests.families.family import LONGEST, Family

__all__ = ["CAUSAL_LM"]

_SIZE = 120
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": _SIZE,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ROLES = ["<|im_start|>", "<|im_end|>"]
_CHATML = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} : {{ message['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant : {% endif %}"
)


def _write(folder: Path, network: Any, template: str) -> None:
    vocabulary = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *_ROLES, *WORDS, *(f"w{number}" for number in range(_SIZE))]
    words = {word: number for number, word in enumerate(vocabulary[:_SIZE])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(_ROLES)
    names = {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=256, **names)
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.3, generator=generator)
            elif "norm" in name.lower() and "bias" not in name:
                weight.copy_(1 + 0.2 * torch.randn(weight.shape, generator=generator))
    network.generation_config = t.GenerationConfig(eos_token_id=[2, 5], pad_token_id=0, bos_token_id=1)
    network.eval().save_pretrained(folder)


@cache
def _loaded(folder: Path) -> tuple[Any, Any]:
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(t, name).from_pretrained(folder).eval(), t.AutoTokenizer.from_pretrained(folder)


def _whole(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    network, tokenizer = _loaded(folder)
    if tokenizer.chat_template is None:
        prepared = tokenizer(inputs["text"], return_tensors="pt")
    else:
        said = inputs["text"]
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prepared = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    prepared.pop("token_type_ids", None)
    new = network.generate(**prepared, max_new_tokens=LONGEST, do_sample=False)[0][prepared["input_ids"].shape[1] :]
    finished = "stop" if new[-1].item() in (2, 5) else "length"
    return {"text": tokenizer.decode(new, skip_special_tokens=True).strip(), "finished": finished}


def _family(name: str, network: Callable[[], Any], template: str = _CHATML) -> Family:
    def make(folder: Path) -> None:
        torch.manual_seed(5)
        _write(folder, network(), template)

    asks: list[dict[str, Any]] = [{"text": "what is this"}, {"text": "who sits on the red mat"}]
    chat = [
        {"role": "system", "content": "yes no"},
        {"role": "user", "content": "a cat"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "who is there"},
    ]
    return Family(name, "text", make, [*asks, {"text": chat}] if template else asks, _whole)


CAUSAL_LM = [
    _family("llama", lambda: t.LlamaForCausalLM(t.LlamaConfig(**_TEXT))),
    _family("qwen3", lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**_TEXT, head_dim=8))),
    _family("smollm3", lambda: t.SmolLM3ForCausalLM(t.SmolLM3Config(**_TEXT, no_rope_layers=[1, 0]))),
    _family("gemma3-text", lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**_TEXT, head_dim=8, sliding_window=4))),
    _family(
        "lfm2",
        lambda: t.Lfm2ForCausalLM(t.Lfm2Config(**_TEXT, layer_types=["full_attention", "conv"], block_ff_dim=64)),
    ),
    _family(
        "gpt2",
        lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=_SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
            )
        ),
        template="",
    ),
]
