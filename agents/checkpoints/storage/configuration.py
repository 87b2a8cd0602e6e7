"""The configuration of a part as transformers reads it, and what of it counts for the part's identity. No torch."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.schemas.checkpoints.architectures import value_at
from s2m3.schemas.checkpoints.pipelines import PIPELINE
from s2m3.schemas.checkpoints.sentence_folders import SENTENCE
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["identifying", "part_configuration", "whole_configuration"]

#: Fields of a configuration that change nothing in what a part computes, by a piece of their name.
_COSMETIC = ("dropout", "initializer", "use_cache", "projection_dim", "label", "model_type")

#: Fields of the configuration of a whole model that its encoder of pictures or sound does not read, likewise.
_OF_DECODERS = ("decoder", "text_config", "vocab_size", "token_id", "target_positions", "suppress_tokens", "tie_word")
_ENCODERS = ("vision-encoder", "audio-encoder")


def whole_configuration(opened: CheckpointPart) -> Any:
    """Returns the configuration of the whole checkpoint, with transformers' defaults filled in.

    Raises:
        ModuleFailedError: Its model_type is not known, or a value is not possible.
    """
    return _made(opened, {name: value for name, value in opened.checkpoint.config.items() if name != SENTENCE})


def _made(opened: CheckpointPart, document: Mapping[str, Any]) -> Any:
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
    if PIPELINE in opened.checkpoint.config:  # a component has a configuration of its own
        return _made(opened, value_at(part.config, opened.checkpoint.config) or {})
    whole = whole_configuration(opened)
    config = deepcopy(getattr(whole, part.config) if part.config else whole)
    for key in part.inherit:
        setattr(config, key, getattr(whole, key))
    for key, value in part.set.items():
        setattr(config, key, value)
    return config


def identifying(opened: CheckpointPart, *, every: bool = False) -> dict[str, Any]:
    """Returns what of the configuration changes what the part computes: the fields of its own class, with defaults.

    Args:
        opened: The part.
        every: With fields that are tables of settings.
    """
    config, part = part_configuration(opened), opened.part
    of_others = _OF_DECODERS if not part.config and part.role in _ENCODERS else ()
    found = _fields(config, of_others, every=every)
    return found | _fields(whole_configuration(opened), (), every=every) if part.projector else found


def _fields(config: Any, of_others: tuple[str, ...], *, every: bool) -> dict[str, Any]:
    pieces = (*_COSMETIC, *of_others)
    names = [name for name in type(config).__annotations__ if not any(piece in name for piece in pieces)]
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, bool | int | float | str | list) or (every and isinstance(value, dict)):
            found[name] = value
        elif every and isinstance(value, PreTrainedConfig):
            found[name] = {"class": type(value).__name__, **_fields(value, (), every=True)}
    return found
