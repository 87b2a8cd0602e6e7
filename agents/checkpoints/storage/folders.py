"""Where checkpoints lie on this device: folders by name, absolute paths, the hub's local cache. Imports no torch."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from s2m3.agents.parts.cache import PartCache
from s2m3.agents.runtimes.exported import NO_EXPORTS, ExportedParts
from s2m3.agents.runtimes.network import installed_runtimes
from s2m3.schemas import extras
from s2m3.schemas.checkpoints.adapters import ADAPTER_CONFIG
from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.headers import CONFIGS
from s2m3.schemas.definitions import ModuleSpec, is_hub_id
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["NO_CHECKPOINTS", "CheckpointSources", "hub_folder"]

#: What a part needs of a hub repository besides its shards: configuration, tokenizer, preprocessing; never code.
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
#: What makes a folder a checkpoint, or a LoRA adapter.
_CONFIGS = (*CONFIGS, ADAPTER_CONFIG)
#: A weight file inside a checkpoint: nothing that leads out of it, and no pattern of names.
_WEIGHTS = re.compile(r"(?:\w[\w. -]*/)*\w[\w. -]*\.safetensors")


@dataclass(frozen=True, slots=True)
class CheckpointSources:
    """The checkpoints that this agent can load.

    Args:
        folders: Each of its folders with a config.json, or an adapter_config.json, is a source by its name.
        download: Hub ids that are not in the local cache may be fetched.
        architectures: Architectures that count besides the shipped ones.
        runtimes: What may run networks here: all that is installed, or fewer.
        exports: The parts that were exported for ONNX Runtime.
        cache: The agent's cache of parts; None without one.
    """

    folders: tuple[Path, ...] = ()
    download: bool = False
    architectures: tuple[Architecture, ...] = ()
    runtimes: tuple[str, ...] = field(default_factory=installed_runtimes)
    exports: ExportedParts = NO_EXPORTS
    cache: PartCache | None = None

    def check(self) -> None:
        """Checks that every folder exists.

        Raises:
            BadInputError: One does not; the text names the setting and the folder.
        """
        if missing := [folder for folder in self.folders if not folder.is_dir()]:
            raise BadInputError(f"setting checkpoints: {missing[0]} is not a folder")

    def offered(self) -> list[str]:
        """Returns the sources for the profile: names of folders, hub ids in the cache, and `hub` if any may be had."""
        names = {path.parent.name for folder in self.folders for name in _CONFIGS for path in folder.glob(f"*/{name}")}
        return sorted(names | set(_cached_ids()) | ({"hub"} if self.download else set()))

    def holds(self, source: str) -> bool:
        """Returns whether a source can be loaded here, if need be by fetching it."""
        return self.has(source) or (self.download and is_hub_id(source))

    def has(self, source: str) -> bool:
        """Returns whether a source is on this device."""
        return source in _cached_ids() if is_hub_id(source) else self._local(source) is not None

    def folder(self, spec: ModuleSpec, files: Sequence[str] = ()) -> Path:
        """Returns the folder of a module's checkpoint; from the hub come only small files and what is asked for.

        Args:
            spec: The module.
            files: Weight files that have to be there.

        Raises:
            ModuleFailedError: It is not here, and may not or cannot be fetched; or a file's name leads out of the
                checkpoint, is a pattern, or is of another format than safetensors.
        """
        if wrong := [file for file in files if not _WEIGHTS.fullmatch(file)]:
            raise ModuleFailedError(
                f"{spec.source} names the weight file {wrong[0][:80]!r}, which is not fetched or read"
            )
        if is_hub_id(spec.source):
            return hub_folder(spec.source, spec.revision, [*_SMALL_FILES, *files], download=self.download)
        found = self._local(spec.source)
        if found is None:
            raise ModuleFailedError(f"the checkpoint {spec.source} is not on this device")
        return found

    def _local(self, source: str) -> Path | None:
        if Path(source).is_absolute():
            tries = [Path(source)]
        else:  # a plain name: nothing that leads out of the folders
            plain = Path(source).name == source and source != ".."
            tries = [folder / source for folder in self.folders] if plain and source else []
        return next((path for path in tries if any((path / name).is_file() for name in _CONFIGS)), None)


#: Checkpoints that are named by an absolute path, or are in the hub's local cache.
NO_CHECKPOINTS = CheckpointSources()


def _cached_ids() -> Iterable[str]:
    if find_spec("huggingface_hub") is None or not _may_have_cache():
        return []
    from huggingface_hub import constants  # noqa: PLC0415  # transformers brings it: a light agent may not have it

    found = Path(constants.HF_HUB_CACHE).glob("models--*")
    return [path.name.removeprefix("models--").replace("--", "/", 1) for path in found]


def _may_have_cache() -> bool:
    """Whether the hub's cache may be on this device; without one, a small device does not import the hub's package."""
    is_named = any(name.startswith(("HF_", "HUGGINGFACE_")) for name in os.environ)
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface"
    return is_named or "huggingface_hub" in sys.modules or usual.is_dir()


def hub_folder(source: str, revision: str = "", files: Sequence[str] = _SMALL_FILES, *, download: bool = False) -> Path:
    """Returns the folder of a hub repository in the local cache.

    Args:
        source: Its id, `owner/name`.
        revision: Empty: what its main branch was when it was fetched.
        files: What has to be there; patterns.
        download: Whether they may be fetched.

    Raises:
        ModuleFailedError: It is not in the cache, and may not or cannot be fetched.
    """
    if find_spec("huggingface_hub") is None:
        raise ModuleFailedError(f"{source}: hub ids need the package huggingface_hub ({extras.hint('agent')})")
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # transformers brings it: see above
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    # the HTTPError of the client below it: a connection that is cut more often than it is taken up again
    failed_transfer: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        return Path(
            snapshot_download(
                source, revision=revision or None, allow_patterns=list(files), local_files_only=not download
            )
        )
    except (failed_transfer, OSError, ValueError) as error:  # ValueError: a repository's file that leads out of it
        at = f" at {revision}" if revision else ""
        raise ModuleFailedError(f"{source}{at} cannot be had from the hub or its cache: {error}"[:300]) from error
