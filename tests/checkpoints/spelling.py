"""A tokenizer that can spell every text: the bytes, and some words of JSON."""

import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

__all__ = ["spelling"]


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
