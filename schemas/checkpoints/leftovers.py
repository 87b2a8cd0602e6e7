"""Tensors of published checkpoints that are no weights: positions and masks that older releases saved as buffers."""

from fnmatch import fnmatchcase

from s2m3.schemas.checkpoints.headers import TensorInfo

__all__ = ["is_leftover"]

_BUFFERS = ("*position_ids", "*.masked_bias", "*rotary_emb.inv_freq")
#: A causal mask, (1, 1, positions, positions); a bias of weights has one dimension.
_MASKS, _MASK_DIMS = ("*attn.bias", "*attention.bias"), 4


def is_leftover(name: str, tensor: TensorInfo) -> bool:
    """Returns whether a tensor follows from the configuration, so that networks do not take it from a file.

    Args:
        name: Its name, on disk or in a part.
        tensor: The tensor.
    """
    if any(fnmatchcase(name, pattern) for pattern in _BUFFERS):
        return True
    is_mask = len(tensor.shape) == _MASK_DIMS and tensor.shape[:2] == (1, 1)
    return is_mask and any(fnmatchcase(name, pattern) for pattern in _MASKS)
