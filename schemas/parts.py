"""What a part of a checkpoint is when it travels between nodes: its manifest of files, and who wants or has it."""

import hashlib
import json
import re
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.document import Document
from s2m3.schemas.errors import BadInputError

__all__ = [
    "ADAPTER_FOLDER",
    "MANIFEST_BYTES",
    "PIECE_BYTES",
    "PartFile",
    "PartManifest",
    "Runtime",
    "Sha256",
    "check_file_name",
    "part_key",
]

#: Size of a piece of a file, the last of a file excepted, bytes.
PIECE_BYTES = 65_536
_LARGEST_PIECE, _LEAST_PIECE = 1 << 20, 1 << 10
#: Most files of a part, and most bytes of a manifest as JSON.
_MOST_FILES, MANIFEST_BYTES = 256, 131_072
#: Folder of a part's files that are of the LoRA adapter on the part.
ADAPTER_FOLDER = "adapter"
_LONGEST_NAME = 200
#: Data that is read by a parser and never run: no code, no pickles, nothing hidden, nothing that leads out of a folder.
_NAME = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_. -]*/){0,3}[A-Za-z0-9_][A-Za-z0-9_. -]*"
    r"\.(?:json|txt|model|jinja|tiktoken|spm|safetensors|onnx|onnx\.data|onnx_data|npz)"
)

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
#: `torch`, `onnx`; a list that grows, so a reader passes over what it does not know.
Runtime = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]


def check_file_name(name: str) -> str:
    """Returns the name of a part's file unchanged: a relative path with `/`, of a kind of file that holds data only.

    Raises:
        BadInputError: The name leads out of a folder, is hidden, or is of a kind of file that is not listed.
    """
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None or ".." in name:
        raise BadInputError(f"{name[:80]!r} is not the name of a file that a part may have")
    return name


def part_key(spec: ModuleSpec) -> str:
    """Returns where a module's weights come from, as 16 hex digits: the same for all modules of one part.

    The key names an origin, not a content: a folder that was saved anew has the same key.
    """
    return _key(spec.source, spec.revision, spec.prefix, str(spec.config.get(ADAPTER, "")))


def _key(*origin: str) -> str:
    return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]


class PartFile(Document):
    """One file of a part."""

    name: str = Field(max_length=_LONGEST_NAME)
    bytes: int = Field(ge=0, le=1 << 43)
    #: of the whole file
    sha256: Sha256
    #: hash of the list of the pieces' SHA-256, 32 bytes each, one behind the other
    pieces_sha256: Sha256

    @field_validator("name")
    @classmethod
    def _is_data(cls, name: str) -> str:
        try:
            return check_file_name(name)
        except BadInputError as error:
            raise ValueError(error.detail) from error


class PartManifest(Document):
    """The files of one part for one runtime. Two holders with equal manifests hold the same bytes."""

    #: the fingerprint of the module's numbers and configuration (agents/checkpoints/storage/identity.py)
    content: Sha256
    #: what runs the files: `torch`, `onnx`, …
    runtime: Runtime
    #: dtype of most of the weights in the files
    dtype: str = Field(max_length=32)
    piece_bytes: int = Field(default=PIECE_BYTES, ge=_LEAST_PIECE, le=_LARGEST_PIECE)
    files: list[PartFile] = Field(min_length=1, max_length=_MOST_FILES)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        # a file system that does not tell cases apart would write two such files into one
        if len({file.name.lower() for file in self.files}) != len(self.files):
            raise ValueError("two files have the same name")
        folders = {parent for file in self.files for parent in _parents(file.name.lower())}
        if folders & {file.name.lower() for file in self.files}:
            raise ValueError("a file has the name of a folder")
        return self

    @property
    def digest(self) -> str:
        """The SHA-256 of all of the manifest, 64 hex digits: the name of these bytes everywhere."""
        files = sorted((file.name, file.bytes, file.sha256, file.pieces_sha256) for file in self.files)
        what = [self.content, self.runtime, self.dtype, self.piece_bytes, files]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def pieces_of(self, file: int) -> int:
        """Returns the number of pieces of a file, by its index; an empty file has none."""
        return -(-self.files[file].bytes // self.piece_bytes)

    def length_of(self, file: int, piece: int) -> int:
        """Returns the bytes of one piece of a file, by their indices."""
        return min(self.piece_bytes, self.files[file].bytes - piece * self.piece_bytes)


def _parents(name: str) -> list[str]:
    levels = name.split("/")[:-1]
    return ["/".join(levels[: depth + 1]) for depth in range(len(levels))]
