"""What a part of a checkpoint is by its content: a hash of its tensors and configuration. Computed once, then cached.

Floating-point numbers are hashed by value, as float32: the same weights stored in half precision and in single are the
same module (LLaVA-1.5 stores CLIP's tower in float16). No torch.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from s2m3.agents.checkpoints.scores import problem_type
from s2m3.agents.checkpoints.storage.part import CheckpointPart, read_floats, read_raw
from s2m3.schemas.checkpoints.headers import TensorInfo
from s2m3.schemas.checkpoints.pipelines import DIFFUSERS, pipeline_of
from s2m3.schemas.checkpoints.sentence_folders import SENTENCE

__all__ = ["LIGHT", "cache_folder", "configuration", "digests", "fingerprint", "known_digests"]

_log = structlog.get_logger(__name__)
_FLOATS = ("F32", "F16", "BF16")
#: Classes with a network whose scores follow config.json.
_SCORING = ("text-classifier", "audio-classifier", "zero-shot-classifier")
#: Classes without a network of transformers.
LIGHT = ("similarity-head", "classifier-head")
#: Numbers of a float tensor that are converted at once.
_AT_ONCE = 1 << 22


def fingerprint(opened: CheckpointPart, names: Mapping[str, str] | None = None) -> str:
    """Returns the hash of a part, 64 hex digits.

    Args:
        opened: The part.
        names: Only these of its tensors, name in the part -> name under which it is hashed; None is all of them.
    """
    tensors = opened.tensors()
    taken = {name: name for name in tensors} if names is None else names
    found = digests({name: tensors[name] for name in taken})
    whole = hashlib.sha256(json.dumps(configuration(opened), sort_keys=True, default=str).encode())
    for name, digest in sorted((taken[name], digest) for name, digest in found.items()):
        whole.update(f"\0{name}\0{digest}".encode())
    if opened.adapter is not None:
        for path in sorted(opened.adapter.glob("adapter_*")):
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def configuration(opened: CheckpointPart, *, every: bool = False) -> dict[str, Any]:
    """Returns what of the configuration changes what is computed.

    Args:
        opened: The part.
        every: With tables of settings (of towers, of rotary positions). Without them, fingerprints are those of earlier
            releases; parts that earlier releases did not have, those by patterns of tensors, have them always.
    """
    if "model_cfg" in opened.checkpoint.config:
        return {"model_cfg": opened.checkpoint.config["model_cfg"]}
    if opened.part.class_ in LIGHT:
        return (
            {"labels": opened.value("id2label"), **_scores(opened)} if opened.part.class_ == "classifier-head" else {}
        )
    if opened.part.network.startswith(DIFFUSERS):
        return _of_diffusers(opened)
    if not opened.part.network:  # only the code of the package knows which keys change the outputs
        return {"config": dict(opened.checkpoint.config)}
    found = _identifying(opened, every=every or bool(opened.part.tensors))
    labelled = {"labels": opened.value("id2label"), **_scores(opened)} if opened.part.class_ in _SCORING else {}
    if opened.part.class_ == "text-ranker":
        keys = ("sentence_transformers.activation_fn", "sbert_ce_default_activation_function")
        labelled = {"activation": opened.value(*keys)}
    said = opened.value(SENTENCE)
    return found | labelled | ({"sentence": said} if said else {})


def _identifying(opened: CheckpointPart, *, every: bool) -> dict[str, Any]:
    """Returns what of transformers' configuration counts: kept in the cache, so that transformers is imported once."""
    asked = [opened.checkpoint.config, opened.part.model_dump(mode="json"), opened.architecture, every, _transformers()]
    name = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = cache_folder() / f"{name}.config.json"
    known = _read(path)
    if known:
        return known
    from s2m3.agents.checkpoints.storage.configuration import identifying  # noqa: PLC0415  # it imports transformers

    found = identifying(opened, every=every)
    text = json.dumps(found, sort_keys=True, default=str)
    if json.dumps(json.loads(text), sort_keys=True) == text:  # else a key is no text, and would be sorted differently
        _write(path, text)
    return found


def _transformers() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, text: str) -> None:
    """Writes a file of the cache in one step. A cache that cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        _log.warning("fingerprint_not_cached", error=str(error))


def _of_diffusers(opened: CheckpointPart) -> dict[str, Any]:
    """Returns the configuration of a part's network and, of a denoiser, of what counts its steps and sizes."""
    kept = ["unet", "scheduler", "vae"] if opened.part.class_ == "image-denoiser" else ["vae"]
    components = pipeline_of(opened.checkpoint.config)
    return {name: {**components[name], "config": _public(components[name]["config"])} for name in kept}


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "_diffusers_version")}


def _scores(opened: CheckpointPart) -> dict[str, str]:
    """Returns what the scores depend on beside the tensors; empty for one of several classes, as ever."""
    problem = problem_type(opened)
    return {"problem_type": problem} if problem else {}


def digests(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Returns the hash of each tensor: from the cache where its file has not changed since."""
    files: dict[Path, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        files.setdefault(tensor.file, {})[name] = tensor
    found: dict[str, str] = {}
    for path, inside in files.items():
        cache = _Cache(path)
        for name, tensor in inside.items():
            found[name] = cache.digest(tensor)
        cache.save()
    return found


def known_digests(tensors: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Returns those hashes of tensors that are in the cache; nothing is computed."""
    caches = {path: _Cache(path) for path in {tensor.file for tensor in tensors.values()}}
    found = {name: caches[tensor.file].known(tensor) for name, tensor in tensors.items()}
    return {name: digest for name, digest in found.items() if digest is not None}


def _digest(tensor: TensorInfo) -> str:
    content = hashlib.sha256(f"{tensor.shape}".encode())
    if tensor.dtype not in _FLOATS:
        content.update(f"\0{tensor.dtype}\0".encode())
        content.update(read_raw(tensor).data)
        return content.hexdigest()
    width = tensor.nbytes // max(tensor.count, 1)
    for start in range(0, tensor.count, _AT_ONCE):
        count = min(_AT_ONCE, tensor.count - start)
        piece = TensorInfo(tensor.file, tensor.dtype, (count,), tensor.begin + start * width)
        content.update(read_floats(piece).data)
    return content.hexdigest()


def cache_folder() -> Path:
    """Returns where fingerprints are kept: the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "s2m3" / "fingerprints"


class _Cache:
    """The hashes of one file's tensors, kept under the file's path, size and time of change."""

    def __init__(self, path: Path) -> None:
        stat = path.stat()
        what = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
        self._path = cache_folder() / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.json"
        self._known: dict[str, str] = _read(self._path)
        self._new = False

    def known(self, tensor: TensorInfo) -> str | None:
        """Returns a tensor's hash if it is known."""
        return self._known.get(f"{tensor.begin}:{tensor.dtype}:{tensor.shape}")

    def digest(self, tensor: TensorInfo) -> str:
        """Returns a tensor's hash, computing it if it is not known."""
        key = f"{tensor.begin}:{tensor.dtype}:{tensor.shape}"
        if key not in self._known:
            self._known[key] = _digest(tensor)
            self._new = True
        return self._known[key]

    def save(self) -> None:
        """Writes what is new."""
        if self._new:
            _write(self._path, json.dumps(self._known))
