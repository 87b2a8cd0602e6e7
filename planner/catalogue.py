"""The model definitions a planner knows: the shipped ones, and those of the user's folder."""

from collections.abc import Sequence
from pathlib import Path

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.definitions import Catalogue, load_catalogue, shipped_catalogue, shipped_folder
from s2m3.schemas.errors import BadInputError

__all__ = ["catalogue_of"]


def catalogue_of(folder: Path | None, own: Sequence[Architecture] = ()) -> Catalogue:
    """Returns the shipped definitions and those of a folder, checked together.

    Args:
        folder: Of further definitions.
        own: Architectures that its checkpoints may be of besides the shipped ones.

    Raises:
        BadInputError: There is no such folder.
        BadDefinitionError: A definition is wrong; the text names file and key.
    """
    if folder is None:
        return shipped_catalogue()
    if not folder.is_dir():
        raise BadInputError(f"setting models: {folder} is not a folder")
    return load_catalogue([*shipped_folder().glob("*.toml"), *folder.glob("*.toml")], own)
