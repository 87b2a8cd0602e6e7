"""A family of checkpoints in the table: how a tiny one is written, what it is asked, and what transformers says."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from s2m3.commands.module_options import with_options
from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.servable import check_servable
from s2m3.schemas.definitions import Definition
from s2m3.schemas.specs import ModuleSpec

__all__ = ["Family", "altered", "definition"]

#: Tokens that a generating family says at most.
LONGEST = 10


@dataclass(frozen=True)
class Family:
    """One row of the table of families.

    Args:
        name: The row's name, an id: `smolvlm`.
        kind: The section of the table: `vision-language`, `dual`, `speech`, `detection`, `text`, `picture`,
            `classification`.
        make: Writes a tiny checkpoint with re-randomised weights into a folder, with its real kinds of processor,
            tokenizer, chat template and generation_config.
        asks: Inputs of at least two requests whose answers differ.
        whole: (folder, inputs) -> the answer's outputs, by transformers on the whole model, as its card says.
        options: Of `task add --option`.
    """

    name: str
    kind: str
    make: Callable[[Path], None]
    asks: Sequence[dict[str, Any]]
    whole: Callable[[Path, dict[str, Any]], dict[str, Any]]
    options: Sequence[str] = ()


def definition(folder: Path, options: Sequence[str] = ()) -> Definition:
    """Returns what `task add --model FOLDER` makes of a checkpoint; its texts are kept short."""
    checkpoint = read_checkpoint(folder)
    check_servable(checkpoint, architecture_of(checkpoint.config))
    found = with_options(definition_of(checkpoint, folder.name), options)
    assert found is not None
    return found.model_copy(update={"modules": [_short(spec) for spec in found.modules]})


def _short(spec: ModuleSpec) -> ModuleSpec:
    if not spec.writes:
        return spec
    return spec.model_copy(update={"config": {**spec.config, "max_new_tokens": LONGEST}})


def altered(folder: Path, part_tensors: Sequence[str]) -> Path:
    """Returns a copy of a checkpoint in which the largest matrix of a part has other numbers.

    Args:
        folder: The checkpoint.
        part_tensors: Names on disk of the part's tensors.
    """
    copy = folder.parent / f"{folder.name}-altered"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    held = {file: load_file(file) for file in sorted(copy.rglob("*.safetensors"))}
    wanted = set(part_tensors)  # those of a pipeline begin with the folder of their component
    names = {(file, name): {name, f"{file.parent.name}.{name}"} for file, found in held.items() for name in found}
    own = [place for place, called in names.items() if called & wanted]
    file, name = max(own, key=lambda place: held[place[0]][place[1]].size)
    tensor = held[file][name]
    noise = np.random.default_rng(1).standard_normal(tensor.shape).astype(tensor.dtype)
    save_file(held[file] | {name: np.asarray(tensor + noise)}, file, metadata={"format": "pt"})
    return copy
