"""What a checkpoint is made of: its parts, their sizes, what passes between them; from headers and configuration."""

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

#: Bytes of a number in memory. int8: of the matrices of linear layers; everything else stays in 32 bits.
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

#: Tensors of these are indices and counters.
_NO_WEIGHTS = ("I64", "I32", "BOOL")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the headers of a part say: parameters, those in matrices of linear layers by their shapes, bytes on disk."""

    parameters: int
    linear: int
    on_disk: int


@dataclass(frozen=True, slots=True)
class PartSize:
    """One part of a checkpoint or of a known model.

    Args:
        name: As in the architecture.
        identity: What it is: parts with equal identity are held once.
        role: Of the architecture.
        parameters: Numbers in its tensors, indices and counters not counted.
        lookup: Of these, those that are only looked up.
        linear: Of these, the matrices of linear layers.
        gflops: Operations for one item, 10^9; None where the network has no formula.
        passes: Shape of what each of its outputs sends on for one item, of float32.
        on_disk: Bytes of its tensors in their files; None where there are no files.
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
        """Returns the bytes that its weights take in memory."""
        wide = self.parameters - self.linear if dtype == "int8" else 0
        return (self.parameters - wide) * DTYPES[dtype] + wide * DTYPES["float32"]

    def passed_bytes(self, output: str) -> int:
        """Returns the bytes of one output of one item."""
        return 4 * prod(self.passes[output])


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its parts.

    Args:
        name: What it was asked by.
        description: What it does.
        parts: In the order of its steps.
        folder: Where its files are; None for one that is known by its configuration alone.
    """

    name: str
    description: str
    parts: tuple[PartSize, ...]
    folder: Path | None = None

    def nbytes(self, dtype: str = "float32") -> int:
        """Returns the bytes of all its weights in memory, each part once."""
        return _together(self.parts, dtype)


@dataclass(frozen=True, slots=True)
class Saving:
    """Bytes before and after, in one of the two conventions; a saving of one is never that of the other."""

    before: int
    after: int

    @property
    def saved(self) -> float:
        """What part of it is saved, 0 to 1."""
        return 1 - self.after / self.before if self.before else 0.0


def _together(parts: Iterable[PartSize], dtype: str) -> int:
    return sum({part.identity: part.nbytes(dtype) for part in parts}.values())


def peak_saving(model: Model, dtype: str = "float32") -> Saving:
    """Returns what one device must hold at least: the whole model, or its largest part when it is split."""
    return Saving(model.nbytes(dtype), max(part.nbytes(dtype) for part in model.parts))


def total_saving(models: Sequence[Model], dtype: str = "float32") -> Saving:
    """Returns what all models together hold over all devices: a copy of each for itself, or each distinct part once."""
    separate = sum(model.nbytes(dtype) for model in models)
    return Saving(separate, _together([part for model in models for part in model.parts], dtype))


def model_of(checkpoint: Checkpoint, name: str) -> Model:
    """Returns the parts of a checkpoint.

    Args:
        checkpoint: Its configuration and all its headers.
        name: What to call it.

    Raises:
        BadDefinitionError: Its architecture is not known, or a part has no tensors.
    """
    family = architecture_of(checkpoint.config)
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
        config: As in config.json.
        origin: What tells its parts from those of other checkpoints.
        numbers: Of each part, by the headers; None: by the configuration alone.

    Raises:
        BadDefinitionError: The configuration is wrong, or no size follows from it and there are no headers.
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
