"""The files of a module whose class is of an installed package: the second argument of the loading function."""

from dataclasses import dataclass
from pathlib import Path

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import CheckpointPart, open_part
from s2m3.agents.zoo.wheels import NO_SOURCE, wheel_folder
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["ModuleSource"]


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """The files that a module's `source` names.

    Args:
        spec: The module.
        checkpoints: The checkpoints that this agent can load.
    """

    spec: ModuleSpec
    checkpoints: CheckpointSources

    @property
    def missing(self) -> str | None:
        """What is not on this device, or None. `none` stands for a module without files."""
        source = self.spec.source
        if source == NO_SOURCE or self.checkpoints.holds(source) or wheel_folder(source):
            return None
        return f"the source {source}: neither a checkpoint of this agent nor an installed package"

    @property
    def is_checkpoint(self) -> bool:
        """Whether the source is a checkpoint of this agent's, and not the folder of an installed package."""
        return self.checkpoints.holds(self.spec.source)

    def folder(self, *files: str) -> Path:
        """Returns the folder of the checkpoint, or of the installed package (`a-name` is the folder `a_name`).

        Args:
            files: Names or patterns of the weight files that a checkpoint of the model hub must have. With `--download`
                these files and the small ones (configuration, tokenizer) are fetched.

        Raises:
            ModuleFailedError: The folder is not on this device, or the module has no files.
        """
        if self.is_checkpoint:
            return self.checkpoints.folder(self.spec, files)
        found = wheel_folder(self.spec.source)
        if found is None:
            raise ModuleFailedError(f"module {self.spec.id} has no folder: its source is {self.spec.source!r}")
        return found

    def part(self) -> CheckpointPart:
        """Returns the module's part of a checkpoint: its tensors by their names in the part, none of them read.

        Raises:
            ModuleFailedError: The checkpoint is damaged or of an architecture that is not known here, or it has no part
                `prefix`, or that part is of another class.
        """
        return open_part(self.spec, self.checkpoints)
