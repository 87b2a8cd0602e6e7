"""Resolves a name on the command line: the folder of a checkpoint, a hub id in the local cache, or a known model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from s2m3.agents.checkpoints.storage.folders import CheckpointSources, hub_folder
from s2m3.schemas.checkpoints.architectures import Architecture, architecture_of
from s2m3.schemas.checkpoints.deriving import definition_of, module_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.parts import Model, PartSize, model_of
from s2m3.schemas.checkpoints.published import KnownCheckpoint, known_parts
from s2m3.schemas.checkpoints.servable import why_not_servable
from s2m3.schemas.definitions import Catalogue, ModuleSpec, is_hub_id
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.sizes import ANSWER_TOKENS
from s2m3.schemas.wire.values import Kind, Value

if TYPE_CHECKING:
    from s2m3.agents.checkpoints.dtype_distances import Distances
    from s2m3.agents.checkpoints.storage.part import CheckpointPart

__all__ = ["distances_of", "read_source", "unservable", "with_content_compared"]

_SAMPLES = Path(__file__).parents[1] / "samples"


def read_source(source: str, catalogue: Catalogue, own: Sequence[Architecture] = ()) -> Model:
    """Returns the parts of a model; reads only configurations and headers.

    Args:
        source: Folder, hub id, or id of a known model.
        catalogue: The known models.
        own: Architectures besides the shipped ones.

    Raises:
        BadInputError: There is no such folder or model, or it cannot be read; the text says what is wrong.
    """
    if source in catalogue.models:
        return _known(source, catalogue, own)
    if Path(source).is_dir():
        return model_of(read_checkpoint(Path(source)), source, own)
    if not is_hub_id(source):
        raise BadInputError(f"{source} is neither a folder nor a model that is known; `s2m3 models` lists those")
    name, published = next(((n, k) for n, k in catalogue.checkpoints.items() if k.source == source), (source, None))
    try:
        folder = hub_folder(source, published.revision if published else "")
    except ModuleFailedError as error:
        raise BadInputError(error.detail) from error
    model = model_of(read_checkpoint(folder), source, own)
    return _as_published(model, name, published, own) if published else model


def unservable(model: Model, own: Sequence[Architecture] = ()) -> str | None:
    """Returns why a model's folder cannot be served, in one line; None if it can, or if its weights are not here."""
    if model.folder is None:
        return None
    checkpoint = read_checkpoint(model.folder, lambda _: False)
    return why_not_servable(checkpoint, architecture_of(checkpoint.config, own))


def _known(name: str, catalogue: Catalogue, own: Sequence[Architecture]) -> Model:
    """Returns a known model: parts of checkpoints by their headers, other modules by the estimates of their specs."""
    parts = known_parts(catalogue.checkpoints, own)
    model = catalogue.models[name]
    found = [parts.get(module_id) or _plain(catalogue.modules[module_id]) for module_id in model.module_ids]
    return Model(name, model.description, tuple(found))


def _plain(spec: ModuleSpec) -> PartSize:
    numbers, linear = (round(mb * 1e6 / 4) for mb in (spec.memory_mb, spec.linear_mb or 0.0))
    return PartSize(spec.id, spec.id, spec.role, numbers, 0, linear, spec.gflops)


def _as_published(model: Model, name: str, published: KnownCheckpoint, own: Sequence[Architecture]) -> Model:
    """Returns the model with its parts' identities taken from the definition that names this repository."""
    known = {part.name: part.identity for part in known_parts({name: published}, own).values()}
    return replace(model, parts=tuple(replace(part, identity=known[part.name]) for part in model.parts))


def with_content_compared(models: Sequence[Model], own: Sequence[Architecture] = ()) -> list[Model]:
    """Returns the models with parts of equal content merged; reads every tensor of parts that may be equal.

    A part whose configuration or preprocessing cannot be read is equal to no other.

    Raises:
        ModuleFailedError: A file cannot be read.
    """
    from s2m3.agents.checkpoints.storage.part import open_part  # noqa: PLC0415  # numpy, only if contents are compared

    identities = {_key(model, part): part.identity for model in models for part in model.parts}
    opened = {
        f"{model.folder}#{spec.prefix}": open_part(spec, CheckpointSources(architectures=tuple(own)))
        for model in models
        for spec in _specs(model, own)
    }
    for one, other in combinations(opened, 2):
        if identities[one] != identities[other] and _equal(opened[one], opened[other]):
            identities[other] = identities[one]
    return [
        replace(model, parts=tuple(replace(part, identity=identities[_key(model, part)]) for part in model.parts))
        for model in models
    ]


def _equal(one: "CheckpointPart", other: "CheckpointPart") -> bool:
    from s2m3.agents.checkpoints.storage.content import serves  # noqa: PLC0415  # numpy, only if contents are compared

    few, many = sorted((one, other), key=lambda part: len(part.names))
    try:
        return serves(many, few, few.part.outputs)
    except ModuleFailedError:
        return False


def distances_of(model: Model, own: Sequence[Architecture] = ()) -> "Distances":
    """Returns the differences between float32 and other dtypes of each part's outputs, on the shipped samples.

    Raises:
        BadInputError: The model's weights are not on this machine, or it has nothing but a head.
        ModuleFailedError: A part cannot be loaded in a dtype.
    """
    from s2m3.agents.checkpoints.dtype_distances import distances  # noqa: PLC0415  # torch, only if weights are run

    if model.folder is None:
        raise BadInputError(
            f"{model.name} has no weights here to check: name its folder, or its hub id if it is cached"
        )
    definition = definition_of(read_checkpoint(model.folder), str(model.folder.resolve()), own=own)
    modules = [
        spec.model_copy(update={"config": {"max_new_tokens": ANSWER_TOKENS}}) if spec.writes else spec
        for spec in definition.modules
    ]
    items = [_sample(definition.model.inputs, number) for number in range(2)]
    return distances(
        definition.model_copy(update={"modules": modules}), items, CheckpointSources(architectures=tuple(own))
    )


def _sample(inputs: Mapping[str, Kind], number: int) -> dict[str, Value]:
    picture = (_SAMPLES / ("chelsea.jpg", "coffee.jpg")[number]).read_bytes()
    sound = (_SAMPLES / ("hello-world.flac", "weather-today.flac")[number]).read_bytes()
    text = ("a photo of a cat", "what is in the cup")[number]
    values: dict[Kind, Value] = {"image": picture, "images": [picture], "audio": sound}
    values |= {"text": text, "texts": [text, "a dog"], "chat": text}
    return {name: values[kind] for name, kind in inputs.items()}


def _key(model: Model, part: PartSize) -> str:
    return f"{model.folder}#{part.name}"


def _specs(model: Model, own: Sequence[Architecture]) -> list[ModuleSpec]:
    if model.folder is None:
        return []
    family = architecture_of(read_checkpoint(model.folder, lambda _: False).config, own)
    source = str(model.folder.resolve())
    return [
        module_of(
            part.name, family.parts[part.name], numbers=part.parameters, linear=part.linear, size=None, source=source
        )
        for part in model.parts
    ]
