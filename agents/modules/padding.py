"""Which networks may read texts of different lengths in one batch, the shorter ones padded on the left.

Such a batch gives each text an attention mask and positions of its own. A network that ignores or misreads either gives
a padded text other logits than the text alone.
"""

from typing import Any

__all__ = ["HONOURING", "honours_padding"]

#: Classes of transformers that a test holds to equal logits, padded and alone (tests/checkpoints/test_generation.py).
HONOURING = frozenset(
    {
        "BertLMHeadModel",
        "BlipTextLMHeadModel",
        "GPT2LMHeadModel",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "WhisperDecoder",
        "WhisperForCausalLM",
    }
)
#: Rotary positions whose frequencies depend on the longest text of the batch.
_SHARED_ROTATION = ("dynamic", "longrope")


def honours_padding(network: Any) -> bool | None:
    """Returns whether a network reads padded rows as it reads each alone; None if that has to be measured.

    Args:
        network: A decoder of transformers.
    """
    rotation = getattr(network.config, "rope_parameters", None) or {}
    if isinstance(rotation, dict) and rotation.get("rope_type") in _SHARED_ROTATION:
        return False
    return True if type(network).__name__ in HONOURING else None
