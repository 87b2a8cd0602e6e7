"""A tokenizer that can spell every text: the bytes, and some words of JSON. And a chat model with random weights."""

from pathlib import Path

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

__all__ = ["make_speller", "spelling"]

_SIZE = 272
_CHAT = (
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{% for message in messages %}{{ message['role'] }}: "
    "{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def spelling(size: int) -> t.PreTrainedTokenizerFast:
    """Returns a byte-level tokenizer whose token 0 pads, 1 begins and 2 ends a text.

    Args:
        size: Tokens; at least 259.
    """
    words = [
        "<pad>",
        "<s>",
        "</s>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        '"}',
        '",',
        "}]",
        "true",
        "\u0120the",
    ]
    made = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words[:size])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(words[:3])
    return t.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")  # noqa: S106


def make_speller(folder: Path) -> None:
    """Writes a tiny causal language model whose tokens are bytes, with a chat template that shows tools."""
    torch.manual_seed(11)
    config = t.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=_SIZE,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    tokenizer = spelling(_SIZE)
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)
    network = t.LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.3)
    network.generation_config = t.GenerationConfig(eos_token_id=2, pad_token_id=0, bos_token_id=1)
    network.eval().save_pretrained(folder)
