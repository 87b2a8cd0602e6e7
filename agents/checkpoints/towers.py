"""One tower of a dual encoder: transformers' own class, without the other tower, whose `forward` gives the features."""

from collections.abc import Iterable
from typing import Any

from s2m3.schemas.errors import ModuleFailedError

__all__ = ["one_tower"]


def one_tower(network_class: Any, features: str, kept: Iterable[str]) -> Any:
    """Returns a class like a dual encoder's own that lacks the children and parameters of everything but one tower.

    `from_pretrained` builds a network on the meta device before the weights are read: what is removed at the end of
    `__init__` never had memory, and none of its weights is missed.

    Args:
        network_class: The checkpoint's class, for example CLIPModel.
        features: `image`, `text` or `audio`: `forward` becomes `get_<features>_features`.
        kept: Prefixes of tensor names, `vision_model.`: the children of these names stay.

    Raises:
        ModuleFailedError: The class has no such method.
    """
    name = network_class.__name__
    method = getattr(network_class, f"get_{features}_features", None)
    if method is None:
        raise ModuleFailedError(f"{name} gives no {features} features in this version of transformers")
    names = {prefix.partition(".")[0] for prefix in kept}

    def __init__(self: Any, config: Any, *args: Any, **how: Any) -> None:  # noqa: N807 - the method of a class made here
        network_class.__init__(self, config, *args, **how)
        own = [name for name, _ in (*self.named_children(), *self.named_parameters(recurse=False))]
        for name in set(own) - names:
            delattr(self, name)

    def _init_weights(self: Any, module: Any) -> None:
        if module is not self:  # the whole class would set the start values of the removed children
            network_class._init_weights(self, module)  # noqa: SLF001 - transformers' own hook

    members = {"__init__": __init__, "_init_weights": _init_weights, "forward": method}
    # Under the name and module of the class itself, transformers finds its conversions of tensor names.
    return type(name, (network_class,), {**members, "__module__": network_class.__module__})
