"""The configuration of a part as transformers reads it, and what of it counts for the part's identity. No torch."""

from copy import deepcopy
from typing import Any

from transformers import CONFIG_MAPPING

from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.schemas.checkpoints.sentence_folders import SENTENCE
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["identifying", "part_configuration", "whole_configuration"]

#: Fields of a configuration that change nothing in what a part computes, by a piece of their name.
_COSMETIC = ("dropout", "initializer", "use_cache", "projection_dim", "label", "model_type")


def whole_configuration(opened: CheckpointPart) -> Any:
    """Returns the configuration of the whole checkpoint, with transformers' defaults filled in.

    Raises:
        ModuleFailedError: Its model_type is not known, or a value is not possible.
    """
    document = {name: value for name, value in opened.checkpoint.config.items() if name != SENTENCE}
    kind = document.get("model_type")
    if kind not in CONFIG_MAPPING:
        own = ": it needs code of its own, which is never run" if "auto_map" in document else ""
        raise ModuleFailedError(f"this version of transformers has no model_type {kind!r}{own}")
    try:
        return CONFIG_MAPPING[kind].from_dict(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModuleFailedError(f"config.json of {opened.checkpoint.folder.name}: {error}"[:300]) from error


def part_configuration(opened: CheckpointPart) -> Any:
    """Returns the configuration of a part's own network.

    Raises:
        ModuleFailedError: As whole_configuration.
    """
    part = opened.part
    whole = whole_configuration(opened)
    config = deepcopy(getattr(whole, part.config) if part.config else whole)
    for key in part.inherit:
        setattr(config, key, getattr(whole, key))
    for key, value in part.set.items():
        setattr(config, key, value)
    return config


def identifying(opened: CheckpointPart) -> dict[str, Any]:
    """Returns what of the configuration changes what the part computes: the fields of its own class, with defaults."""
    found = _fields(part_configuration(opened))
    return found | _fields(whole_configuration(opened)) if opened.part.projector else found


def _fields(config: Any) -> dict[str, Any]:
    names = [name for name in type(config).__annotations__ if not any(piece in name for piece in _COSMETIC)]
    values = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str | list)}
