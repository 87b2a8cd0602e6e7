"""One tower of a dual encoder: transformers' own class, without the other tower, whose `forward` gives the features."""

from collections.abc import Iterable
from typing import Any

from s2m3.agents.checkpoints.networks.partial import partial_class
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["one_tower"]


def one_tower(network_class: Any, features: str, kept: Iterable[str]) -> Any:
    """Returns a class like a dual encoder's own that lacks the children and parameters of everything but one tower.

    Args:
        network_class: The checkpoint's class, for example CLIPModel.
        features: `image`, `text` or `audio`: `forward` becomes `get_<features>_features`.
        kept: Prefixes of tensor names, `vision_model.`: the children of these names stay.

    Raises:
        ModuleFailedError: The class has no such method.
    """
    method = getattr(network_class, f"get_{features}_features", None)
    if method is None:
        name = network_class.__name__
        raise ModuleFailedError(f"{name} gives no {features} features in this version of transformers")
    partial = partial_class(network_class, [prefix.partition(".")[0] for prefix in kept], [])

    def _init_weights(self: Any, module: Any) -> None:
        if module is not self:  # the whole class would set the start values of the absent children
            partial._init_weights(self, module)  # noqa: SLF001 - transformers' own hook

    members = {"_init_weights": _init_weights, "forward": method}
    # Under the name and module of the class itself, transformers finds its conversions of tensor names.
    return type(network_class.__name__, (partial,), {**members, "__module__": network_class.__module__})
