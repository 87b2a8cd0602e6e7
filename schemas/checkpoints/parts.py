"""The parts of a checkpoint, their sizes and the tensors passed between them, from headers and configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.architectures import Architecture, architecture_of
from s2m3.schemas.checkpoints.deriving import linear_by_shape, tensors_of
from s2m3.schemas.checkpoints.headers import Checkpoint
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.sizes import Count, passed, sizes_of

__all__ = ["DTYPES", "Model", "Numbers", "PartSize", "Saving", "model_of", "parts_of", "peak_saving", "total_saving"]

#: Bytes of a weight in memory. int8 applies to matrices of linear layers; other weights stay in 32 bits.
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

#: Dtypes, as in safetensors, of indices and counters, which are not parameters.
_NO_WEIGHTS = ("I64", "I32", "BOOL")


@dataclass(frozen=True, slots=True)
class Numbers:
    """Counts from a part's headers: parameters, parameters in linear layers (estimated by shape), bytes on disk."""

    parameters: int
    linear: int
    on_disk: int


@dataclass(frozen=True, slots=True)
class PartSize:
    """One part of a checkpoint or of a known model.

    Args:
        name: Name in the architecture.
        identity: Parts with equal identity are the same part and are held once.
        role: Role in the architecture.
        parameters: Numbers in the tensors, without indices and counters.
        lookup: Of these, the numbers in token embeddings.
        linear: Of these, the numbers in matrices of linear layers.
        gflops: Operations per item, 10^9; None if the network has no formula.
        passes: Output -> shape of its float32 tensor for one item.
        on_disk: Bytes of the tensors in their files; None if there are no files.
    """

    name: str
    identity: str
    role: str
    parameters: int
    lookup: int
    linear: int
    gflops: float | None
    passes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    on_disk: int | None = None

    def nbytes(self, dtype: str = "float32") -> int:
        """Returns the bytes of the weights in memory."""
        wide = self.parameters - self.linear if dtype == "int8" else 0
        return (self.parameters - wide) * DTYPES[dtype] + wide * DTYPES["float32"]

    def passed_bytes(self, output: str) -> int:
        """Returns the bytes of one output for one item."""
        return 4 * prod(self.passes[output])


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its parts.

    Args:
        name: The name that the caller gave the model.
        description: A sentence on the model's purpose.
        parts: The parts, in the order of the architecture.
        folder: The checkpoint's folder; None for a model that is known by its configuration only.
    """

    name: str
    description: str
    parts: tuple[PartSize, ...]
    folder: Path | None = None

    def nbytes(self, dtype: str = "float32") -> int:
        """Returns the bytes of all weights in memory, each distinct part once."""
        return _together(self.parts, dtype)


@dataclass(frozen=True, slots=True)
class Saving:
    """Bytes before and after, by `peak_saving` or `total_saving`, two measures that are not comparable."""

    before: int
    after: int

    @property
    def saved(self) -> float:
        """The saved fraction, 0 to 1."""
        return 1 - self.after / self.before if self.before else 0.0


def _together(parts: Iterable[PartSize], dtype: str) -> int:
    largest: dict[str, int] = {}
    for part in parts:  # one that is held once may lack what another one has: a tower without its projection
        largest[part.identity] = max(part.nbytes(dtype), largest.get(part.identity, 0))
    return sum(largest.values())


def peak_saving(model: Model, dtype: str = "float32") -> Saving:
    """Returns the memory that one device needs at least: the whole model's, or when split, that of the largest part."""
    return Saving(model.nbytes(dtype), max(part.nbytes(dtype) for part in model.parts))


def total_saving(models: Sequence[Model], dtype: str = "float32") -> Saving:
    """Returns the memory of all models over all devices: each model separately, or each distinct part once."""
    separate = sum(model.nbytes(dtype) for model in models)
    return Saving(separate, _together([part for model in models for part in model.parts], dtype))


def model_of(checkpoint: Checkpoint, name: str, own: Sequence[Architecture] = ()) -> Model:
    """Returns the parts of a checkpoint.

    Args:
        checkpoint: The configuration and all headers.
        name: The model's name.
        own: Architectures that count besides the shipped ones.

    Raises:
        BadDefinitionError: The architecture is unknown, or a part has no tensors.
    """
    family = architecture_of(checkpoint.config, own)
    numbers: dict[str, Numbers] = {}
    for part_name, part in family.parts.items():
        tensors = {name: checkpoint.tensors[name] for name in tensors_of(checkpoint, part_name, part)}
        weights = sum(tensor.count for tensor in tensors.values() if tensor.dtype not in _NO_WEIGHTS)
        on_disk = sum(tensor.nbytes for tensor in tensors.values())
        numbers[part_name] = Numbers(weights, linear_by_shape(tensors), on_disk)
    parts = parts_of(family, checkpoint.config, str(checkpoint.folder.resolve()), numbers)
    return Model(name, family.description, parts, checkpoint.folder)


def parts_of(
    family: Architecture,
    config: Mapping[str, Any],
    origin: str,
    numbers: Mapping[str, Numbers] | None = None,
) -> tuple[PartSize, ...]:
    """Returns a model's parts, in the order of the architecture.

    Args:
        family: The architecture.
        config: The configuration, as in config.json.
        origin: Prefix of the parts' identities, different for each checkpoint.
        numbers: Part -> counts from headers; None to use the configuration only.

    Raises:
        BadDefinitionError: The configuration is invalid, or without headers, a part's network has no formula.
    """
    sizes = sizes_of(family, config)
    found = []
    for name, part in family.parts.items():
        size = sizes[name]
        if size is None and numbers is None:
            raise BadDefinitionError(
                f"{origin}: the size of {name} ({part.network}) does not follow from its configuration"
            )
        count = size.count if size else Count()
        read = numbers[name] if numbers else None
        found.append(
            PartSize(
                name=name,
                identity=f"{origin}#{name}",
                role=part.role,
                parameters=read.parameters if read else count.parameters,
                lookup=count.lookup,
                linear=read.linear if read and size is None else count.linear,
                gflops=size.gflops if size else None,
                passes=passed(part, size),
                on_disk=read.on_disk if read else None,
            )
        )
    return tuple(found)
