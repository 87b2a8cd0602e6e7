"""Definitions of published checkpoints from a hub id and the configuration that determines sizes; reads no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from s2m3.schemas.checkpoints.architectures import Architecture, architecture_of
from s2m3.schemas.checkpoints.deriving import module_of, wired
from s2m3.schemas.checkpoints.parts import PartSize, parts_of
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.ids import Id
from s2m3.schemas.sizes import sizes_of
from s2m3.schemas.specs import ModelSpec, ModuleSpec
from s2m3.schemas.wire.values import Kind

__all__ = ["KnownCheckpoint", "known_modules", "known_parts", "known_wiring"]


class KnownCheckpoint(BaseModel):
    """A `[checkpoints.<id>]` table: its parts become the modules `<id>-<part>`, its steps the model `<id>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    source: str = Field(description="hub id, or the name of a folder among an agent's checkpoints")
    revision: str = Field(default="", description="revision of a hub id")
    architecture: str = Field(
        default="", description="name in config.json's `architectures`; empty for open_clip's format"
    )
    description: str = Field(default="", description="the model's description; empty: the architecture's")
    config: dict[str, Any] = Field(description="the keys of config.json that determine sizes")
    names: dict[str, Id] = Field(default={}, description="part -> module id, where it is not `<id>-<part>`")
    same: dict[str, Id] = Field(default={}, description="part -> id of the module that is identical to it")
    inputs: dict[str, dict[str, Kind]] = Field(
        default={}, description="part -> inputs, for a head whose inputs differ from its architecture's"
    )

    @property
    def whole(self) -> dict[str, Any]:
        """The configuration, including the name of the architecture."""
        return {"architectures": [self.architecture], **self.config} if self.architecture else self.config


def known_modules(name: str, known: KnownCheckpoint, own: Sequence[Architecture] = ()) -> list[ModuleSpec]:
    """Returns the modules of a checkpoint, which may be of an architecture of `own` too.

    Raises:
        BadDefinitionError: The architecture is unknown, or the configuration does not determine sizes.
    """
    family = architecture_of(known.whole, own)
    ids = _ids(name, known, family)
    for key, parts in (("names", known.names), ("same", known.same), ("inputs", known.inputs)):
        if unknown := parts.keys() - family.parts.keys():
            raise BadDefinitionError(f"{key}.{min(unknown)}: there is no such part: {', '.join(family.parts)}")
    sizes = sizes_of(family, known.whole)
    found = []
    for part in parts_of(family, known.whole, name):
        spec = module_of(
            part.name,
            family.parts[part.name],
            numbers=part.parameters,
            linear=part.linear,
            size=sizes[part.name],
            source=known.source,
            revision=known.revision,
        )
        update = {"id": ids[part.name], "same_as": known.same.get(part.name)}
        found.append(spec.model_copy(update={**update, "inputs": known.inputs.get(part.name, spec.inputs)}))
    return found


def known_wiring(name: str, known: KnownCheckpoint, own: Sequence[Architecture] = ()) -> ModelSpec | None:
    """Returns the model of a checkpoint; None for a head alone."""
    family = architecture_of(known.whole, own)
    if not family.steps:
        return None
    model = wired(family, name, _ids(name, known, family))
    return model.model_copy(update={"description": known.description or family.description})


def known_parts(checkpoints: Mapping[str, KnownCheckpoint], own: Sequence[Architecture] = ()) -> dict[str, PartSize]:
    """Returns module id -> part of all checkpoints; parts declared `same` share an identity."""
    found: dict[str, PartSize] = {}
    for name, known in checkpoints.items():
        family = architecture_of(known.whole, own)
        ids = _ids(name, known, family)
        for part in parts_of(family, known.whole, name):
            found[ids[part.name]] = replace(part, identity=known.same.get(part.name, ids[part.name]))
    return found


def _ids(name: str, known: KnownCheckpoint, family: Architecture) -> dict[str, str]:
    return {part: known.names.get(part, f"{name}-{part}") for part in family.parts}
