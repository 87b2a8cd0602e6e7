"""Architectures of one's own: a folder of files like those in schemas/architectures, checked as strictly as models."""

from collections.abc import Iterable
from pathlib import Path

import structlog
from pydantic import ValidationError

from s2m3.schemas.checkpoints.architectures import Architecture, architectures, covering, read_architecture
from s2m3.schemas.checkpoints.deriving import module_of, wired
from s2m3.schemas.definitions import check_model
from s2m3.schemas.errors import BadDefinitionError, BadInputError
from s2m3.schemas.toml_files import first_error, read_toml

__all__ = ["own_architectures"]

_log = structlog.get_logger(__name__)


def own_architectures(folder: Path | None) -> tuple[Architecture, ...]:
    """Returns the architectures of a folder, in the order of its files; none without a folder.

    One that a shipped file names cannot be defined anew. One that only a shipped pattern (`*ForImageClassification`)
    stands for can, and the log says so.

    Raises:
        BadInputError: There is no such folder.
        BadDefinitionError: A file is wrong, or defines what is defined already; the text names file and key.
    """
    if folder is None:
        return ()
    if not folder.is_dir():
        raise BadInputError(f"setting architectures: {folder} is not a folder")
    found = {path.name: read_architecture(path.name, read_toml(path)) for path in sorted(folder.glob("*.toml"))}
    for file, family in found.items():
        _check_wiring(file, family)
        _check_names(file, family.names, found)
    return tuple(found.values())


def _check_names(file: str, names: Iterable[str], found: dict[str, Architecture]) -> None:
    shipped = {name for family in architectures() for name in family.names if not (family.use and "*" in name)}
    for name in names:
        if name in shipped:
            raise BadDefinitionError(f"{file}: names: {name!r} is a shipped architecture, which no other file replaces")
        if others := [other for other, family in found.items() if other != file and name in family.names]:
            raise BadDefinitionError(f"{file}: names: {name!r} is also in {others[0]}")
        if "*" not in name and (pattern := covering(name, architectures())):
            _log.warning("own_architecture_instead_of_shipped", file=file, name=name, shipped=pattern)


def _check_wiring(file: str, family: Architecture) -> None:
    """Raises BadDefinitionError where no model can be made of the parts: as for a definition of modules and steps."""
    modules = {}
    for part_id, part in family.parts.items():
        try:
            modules[part_id] = module_of(part_id, part, numbers=0, linear=0, size=None, source="none")
        except ValidationError as error:
            raise BadDefinitionError(f"{file}: {first_error(error, f'parts.{part_id}')}") from error
    if not family.steps:  # a head alone: other models' definitions use it
        return
    try:
        model = wired(family, "model", {part_id: part_id for part_id in family.parts})
    except ValidationError as error:
        raise BadDefinitionError(f"{file}: {first_error(error)}") from error
    check_model(file, model, modules)
