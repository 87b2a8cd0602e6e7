"""The planner's model definitions: the shipped ones and those in the user's folder."""

from collections.abc import Sequence
from pathlib import Path

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.definitions import Catalogue, load_catalogue, shipped_catalogue, shipped_folder
from s2m3.schemas.errors import BadInputError

__all__ = ["catalogue_of"]


def catalogue_of(folder: Path | None, own: Sequence[Architecture] = ()) -> Catalogue:
    """Returns the catalogue of the shipped definitions and, if a folder is given, those in it, validated together.

    Args:
        folder: A folder of further definitions (*.toml).
        own: Architectures that its checkpoints may have besides the shipped ones.

    Raises:
        BadInputError: The folder does not exist.
        BadDefinitionError: A definition is invalid; the text names file and key.
    """
    if folder is None:
        return shipped_catalogue()
    if not folder.is_dir():
        raise BadInputError(f"setting models: {folder} is not a folder")
    return load_catalogue([*shipped_folder().glob("*.toml"), *folder.glob("*.toml")], own)
