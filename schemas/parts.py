"""What a part of a checkpoint is when it travels between nodes: its manifest of files, and who wants or has it."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.document import Document
from s2m3.schemas.dtypes import DtypeName
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import Id
from s2m3.schemas.protocol import Since

__all__ = [
    "ADAPTER_FOLDER",
    "EXPORT_VERSION",
    "HASHES_AT_ONCE",
    "HASH_BYTES",
    "MANIFEST_BYTES",
    "PIECE_BYTES",
    "PartFile",
    "PartManifest",
    "PartOffer",
    "PartProgress",
    "PartStock",
    "PartWanted",
    "PieceRequest",
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
#: Bytes of one hash in the list of a file's pieces, and how many hashes travel together.
HASH_BYTES, HASHES_AT_ONCE = 32, 1024
#: Folder of a part's files that are of the LoRA adapter on the part.
ADAPTER_FOLDER = "adapter"
#: Counts changes of what exports hold: a node asks for exports of its own number.
EXPORT_VERSION = 1
#: The runtime that takes a checkpoint's own files.
TORCH = "torch"
_LONGEST_NAME = 200
#: Data that is read by a parser and never run: no code, no pickles, nothing hidden, nothing that leads out of a folder.
_NAME = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_. -]*/){0,3}[A-Za-z0-9_][A-Za-z0-9_. -]*"
    r"\.(?:json|txt|model|jinja|tiktoken|spm|safetensors|onnx|onnx\.data|onnx_data|npz)"
)

_HASH = "0123456789abcdef" * 4
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$"), Field(examples=[_HASH])]
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


def part_key(spec: ModuleSpec, runtime: str = TORCH, dtype: str | None = None) -> str:
    """Returns where a module's weights come from, as 16 hex digits: the same for all modules of one part.

    The key names an origin, not a content: a folder that was saved anew has the same key. An export for another runtime
    than torch holds what the module's class made of its configuration, too, and has a key of its own.

    Args:
        spec: The module.
        runtime: What is to run the part.
        dtype: Of an export whose module names none; None is float32.
    """
    origin = (spec.source, spec.revision, spec.prefix, str(spec.config.get(ADAPTER, "")))
    if runtime == TORCH:
        return _key(*origin)
    config = json.dumps(dict(spec.config), sort_keys=True, default=str)
    made_as = (runtime, str(EXPORT_VERSION), spec.class_, config, spec.dtype or dtype or "float32")
    return _key(*origin, *made_as)


def _key(*origin: str) -> str:
    return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]


class PartFile(Document):
    """One file of a part."""

    name: str = Field(max_length=_LONGEST_NAME, examples=["model.safetensors"])
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
    files: list[PartFile] = Field(
        min_length=1,
        max_length=_MOST_FILES,
        examples=[[{"name": "config.json", "bytes": 2, "sha256": _HASH, "pieces_sha256": _HASH}]],
    )

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


class PartStock(Document):
    """What a node can send to others, and what it need not fetch: a part of its profile."""

    #: checkpoints on its disk that it sends parts of
    sources: list[str] = []
    #: keys of the parts in its cache (`part_key`), sorted
    keys: list[str] = []
    #: module classes whose parts it exports for nodes without torch, of all sources in its profile
    exports: list[str] = []


class PartWanted(Document):
    """A node lacks a part and asks all others who has it: where its weights come from, as in the module's spec."""

    source: str = Field(max_length=4096)
    revision: str = Field(default="", max_length=200)
    prefix: str = Field(default="", max_length=200)
    class_: str = Field(alias="class", max_length=64)
    #: the folder or hub id of the LoRA adapter on the part
    adapter: str | None = Field(default=None, max_length=4096)
    #: what could run the part there, in order of preference
    runtimes: list[Runtime] = Field(min_length=1, max_length=16)
    #: the fingerprint, if the module names one
    content: Sha256 | None = None
    #: of a part that is to be exported: the module's configuration, and the dtype of its weights
    config: dict[str, Any] = {}
    dtype: DtypeName | None = None
    #: of a part that is to be exported: the node that is asked to do so; empty while the asker looks for one; absent
    #: in releases that choose none: then each node that can exports it
    exporter: Annotated[Id | Literal[""] | None, Since(1)] = None

    @classmethod
    def of(cls, spec: ModuleSpec, runtimes: Sequence[str]) -> Self:
        """Returns the question for a module's part."""
        adapter = spec.config.get(ADAPTER)
        is_exported = list(runtimes) != [TORCH]
        exported = {"config": dict(spec.config), "dtype": spec.dtype, "exporter": ""} if is_exported else {}
        return cls.model_validate(
            {
                **exported,
                "source": spec.source,
                "revision": spec.revision,
                "prefix": spec.prefix,
                "class": spec.class_,
                "adapter": str(adapter) if adapter is not None else None,
                "runtimes": list(runtimes),
                "content": spec.fingerprint or None,
            }
        )

    @property
    def module(self) -> ModuleSpec:
        """A module of this part, with as much in it as opening the part takes."""
        return ModuleSpec.model_validate(
            {
                "id": "part",
                "role": "head",
                "class": self.class_,
                "source": self.source,
                "revision": self.revision,
                "prefix": self.prefix,
                "config": {**self.config, **({ADAPTER: self.adapter} if self.adapter is not None else {})},
                "dtype": self.dtype,
                "inputs": {"input": "tensor"},
                "outputs": {"output": "tensor"},
                "memory_mb": 1.0,
            }
        )


class PartOffer(Document):
    """The answer to PartWanted of a node that has the part, sent to the node that asked."""

    #: the key of the part that was asked for, see `part_key`
    key: str = Field(max_length=64)
    #: absent while the part is being hashed or exported; then another PartWanted is answered
    manifest: PartManifest | None = None
    #: whether the files come from the checkpoint that the module names, not from another node's copy
    original: bool = False
    #: why there is no part although the checkpoint is there: its export failed, or did not pass its check
    refused: str = Field(default="", max_length=500)
    #: whether this node exports the part if PartWanted names it as `exporter`; nothing is made before
    can_export: Annotated[bool, Since(1)] = False


class PieceRequest(Document):
    """A node asks a holder for one piece of a part."""

    #: the manifest's digest
    part: Sha256
    #: index of the file in the manifest
    file: int = Field(ge=0, lt=_MOST_FILES)
    #: index of the piece; of hashes, index of the block of 1,024 hashes
    piece: int = Field(ge=0, lt=1 << 32)
    #: whether the hashes of the file's pieces are wanted instead of a piece
    hashes: bool = False


class PartProgress(Document):
    """How far a part is that a node fetches from others."""

    bytes: int = Field(ge=0)
    of: int = Field(ge=0)
    #: the nodes that send it
    nodes: list[Id] = []
    #: node -> why nothing more is taken from it
    refused: dict[Id, str] = {}


def _parents(name: str) -> list[str]:
    levels = name.split("/")[:-1]
    return ["/".join(levels[: depth + 1]) for depth in range(len(levels))]
