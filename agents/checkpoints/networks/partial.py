"""Parts of a network that transformers itself can cut: its own class, built without the children of the other parts.

transformers creates a network on the meta device before it loads weights. So a child that is taken away at the end of
`__init__` never holds memory, and its weights count neither as missing nor as random.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

__all__ = ["partial_class"]


#: Children that hold the last layer: a part without them ties no weights.
_HEADS = ("lm_head", "proj_out", "language_model")


class _Absent(nn.Module):
    """The place of a child that another part holds. Its `forward` is never reached."""


def partial_class(network_class: Any, keep: Sequence[str], without: Sequence[str]) -> Any:
    """Returns a subclass of a class of transformers whose networks lack some of their children.

    Args:
        network_class: The class, for instance LlavaForConditionalGeneration.
        keep: Patterns of the paths of children (`lm_head`, `model.language_model`) that stay; empty: all.
        without: Patterns of the paths of children that are taken away.
    """

    def is_kept(path: str) -> bool:
        kept = not keep or any(fnmatchcase(path, pattern) for pattern in keep)
        return kept and not any(fnmatchcase(path, pattern) for pattern in without)

    class Partial(network_class):  # type: ignore[misc]  # a class of transformers, known at run time
        def __init__(self, config: Any, *given: Any, **named: Any) -> None:
            super().__init__(config, *given, **named)
            inner = _inner(self)
            _strip(self, "", lambda path: path == inner or is_kept(path))
            if inner is not None:
                _strip(getattr(self, inner), f"{inner}.", is_kept)
            if any(isinstance(getattr(self, name, None), _Absent) for name in _HEADS):
                self._tied_weights_keys = None
                self.all_tied_weights_keys: dict[str, str] = {}
                self.get_output_embeddings = lambda: None

    Partial.__name__ = Partial.__qualname__ = network_class.__name__
    Partial.__module__ = network_class.__module__
    return Partial


def _inner(network: Any) -> str | None:
    """Returns the name of the child that holds towers and language model: `model`, in classes with a head."""
    prefix = network.base_model_prefix
    return prefix if prefix and isinstance(getattr(network, prefix, None), nn.Module) else None


def _strip(holder: nn.Module, path: str, is_kept: Callable[[str], bool]) -> None:
    for child, _ in list(holder.named_children()):
        if not is_kept(f"{path}{child}"):
            setattr(holder, child, _Absent())
    for name, _ in list(holder.named_parameters(recurse=False)):
        if not is_kept(f"{path}{name}"):
            delattr(holder, name)
            holder.register_buffer(name, torch.empty(0), persistent=False)  # `_init_weights` of its class looks for it
