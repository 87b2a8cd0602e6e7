"""Known architectures and their parts: reads the TOML files of schemas/architectures/. No torch, no weights."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s2m3.schemas.checkpoints.pipelines import MODEL_INDEX, PIPELINE
from s2m3.schemas.checkpoints.uses import said_use
from s2m3.schemas.errors import BadDefinitionError, BadInputError, UnsupportedCheckpointError
from s2m3.schemas.ids import Id
from s2m3.schemas.toml_files import first_error
from s2m3.schemas.wire.values import Kind

__all__ = [
    "Architecture",
    "Output",
    "Part",
    "PartStep",
    "Projector",
    "architecture_name",
    "architecture_of",
    "architectures",
    "covering",
    "families_of",
    "read_architecture",
    "value_at",
]

#: Shipped classes that write a text, their first output.
_WRITING = ("text-generator", "multimodal-generator", "causal-lm", "seq2seq-generator")
Role = Literal["vision-encoder", "text-encoder", "audio-encoder", "decoder", "head"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


class Output(_Frozen):
    """One output of a part: the field of the network's result, and the layer or tokens taken from it."""

    kind: Kind
    field: str = Field(
        default="", description="field of the network's result; `input`: the part's input; empty: chosen by the class"
    )
    layer: int | None = Field(default=None, description="index into `hidden_states`; 0 is the first layer's input")
    skip: int = Field(default=0, ge=0, description="tokens left out at the front, e.g. the class token")
    layer_key: str = Field(default="", description="path of the layer in config.json")
    skip_key: str = Field(
        default="", description="path in config.json of `default` (leave out the first token) or `full`"
    )


class Projector(_Frozen):
    """The network that a decoder applies to the encoder's output, and its tensors' prefixes."""

    network: str = Field(description="`linear`, or a class of transformers that is built from the whole configuration")
    prefixes: dict[str, str] = Field(min_length=1)
    optional: bool = False


class Part(_Frozen):
    """One functional module of a checkpoint: its tensors, and the class that runs it.

    `prefixes` maps the start of a tensor's name on disk to the start of its name in the part; the first match counts.
    `drop` lists prefixes, of names in the part, of tensors that no output needs. A part of a network that transformers
    itself cuts (agents/checkpoints/networks/partial.py) has `tensors` and `others` instead, patterns of names on disk,
    and keeps these names.
    """

    role: Role
    class_: Id = Field(alias="class", description="the module class that runs the part: shipped, or of a package")
    network: str = Field(
        default="", description="class of transformers, or `diffusers.<class>`; `{architecture}`: the checkpoint's own"
    )
    features: Literal["", "image", "text", "audio"] = Field(
        default="",
        description="the network is a dual encoder without the children that `prefixes` do not name, and gives what "
        "`get_<features>_features` gives; `config` then says only what of the configuration is the part's",
    )
    config: str = Field(default="", description="path of the part's configuration in config.json; empty: all of it")
    inherit: list[str] = Field(default=[], description="keys of the whole configuration that the part inherits")
    set: dict[str, Any] = Field(default={}, description="keys of the configuration that the part overrides")
    init: dict[str, Any] = Field(default={}, description="further arguments of the network's class")
    prefixes: dict[str, str] = {}
    drop: list[str] = []
    tensors: list[str] = Field(default=[], description="patterns of the part's tensors, instead of `prefixes`")
    others: list[str] = Field(default=[], description="patterns of tensors of other parts, among those of `tensors`")
    keep: list[str] = Field(
        default=[], description="patterns of the network's children that the part keeps; empty: all"
    )
    without: list[str] = Field(default=[], description="patterns of the network's children that the part lacks")
    projector: Projector | None = None
    start: list[str] = Field(default=[], description="paths of the start token's id; the first that exists counts")
    end: list[str] = Field(default=[], description="paths of the ids of tokens that end a text")
    writes: str | None = Field(
        default=None, description="the output that options shape, of a class other than `text-generator`"
    )
    repeats: int = Field(
        default=1, ge=1, description="how often a weight is used for one item, where no formula counts the operations"
    )
    options: dict[str, Any] = Field(default={}, description="options of the class; a module's `config` overrides them")
    inputs: dict[str, Kind] = Field(min_length=1)
    outputs: dict[str, Output] = Field(min_length=1)

    @property
    def generates(self) -> str | None:
        """The output that a request's options shape: a text, token by token, or a sound; None if there is none."""
        return next(iter(self.outputs)) if self.class_ in _WRITING else self.writes

    def name_of(self, on_disk: str) -> str | None:
        """Returns a tensor's name in the part, without its projector; None if the tensor is not in the part."""
        if self.tensors:
            return on_disk if _matches(self.tensors, on_disk) and not _matches(self.others, on_disk) else None
        name = _renamed(self.prefixes, on_disk)
        return None if name is None or name.startswith(tuple(self.drop)) else name

    def projector_name_of(self, on_disk: str) -> str | None:
        """Returns a tensor's name in the part's projector; None if the tensor is not in the projector."""
        return _renamed(self.projector.prefixes, on_disk) if self.projector else None

    def names(self, on_disk: Iterable[str]) -> dict[str, str]:
        """Returns name on disk -> name in the part, for the part's tensors; the projector's begin with `projector.`."""
        found: dict[str, str] = {}
        for name in on_disk:
            projected = self.projector_name_of(name)
            inside = self.name_of(name) if projected is None else f"projector.{projected}"
            if inside is not None:
                found[name] = inside
        return found


class PartStep(_Frozen):
    """One step of a model: its part, and the source of each input (as in a model definition)."""

    part: str
    inputs: dict[str, str] = Field(min_length=1)


class Architecture(_Frozen):
    """A family of checkpoints: its parts, and the steps that make a model of them. A head alone has no steps."""

    names: list[str] = Field(min_length=1, description="names in config.json's `architectures`; `*` matches anything")
    use: str = Field(
        default="",
        description="what the checkpoint is used for, where other architectures have the same names: a pattern among "
        "`names` counts only if the folder says this use, or somebody asks for it",
    )
    description: str
    inputs: dict[str, Kind] = {}
    answer: list[str] = []
    steps: dict[str, PartStep] = {}
    parts: dict[str, Part] = Field(min_length=1)


def _renamed(prefixes: Mapping[str, str], on_disk: str) -> str | None:
    for old, new in prefixes.items():
        if on_disk.startswith(old):
            return new + on_disk[len(old) :]
    return None


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def value_at(path: str, document: Mapping[str, Any]) -> Any:
    """Returns the value at a dotted path of nested mappings; None if there is none."""
    value: Any = document
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@cache
def architectures() -> tuple[Architecture, ...]:
    """Returns all shipped architectures, in the order of their files."""
    folder = files("s2m3.schemas").joinpath("architectures")
    shipped = [path for path in sorted(folder.iterdir(), key=str) if path.name.endswith(".toml")]
    return tuple(read_architecture(path.name, tomllib.loads(path.read_text(encoding="utf-8"))) for path in shipped)


def read_architecture(where: str, document: Mapping[str, Any]) -> Architecture:
    """Returns the architecture that a file holds.

    Args:
        where: The file's name, for errors.
        document: What it holds.

    Raises:
        BadDefinitionError: It is none; the text names file and key.
    """
    try:
        found = Architecture.model_validate(document)
    except ValidationError as error:
        raise BadDefinitionError(f"{where}: {first_error(error)}") from error
    for part_id, part in found.parts.items():
        if bool(part.prefixes) == bool(part.tensors):
            raise BadDefinitionError(f"{where}: parts.{part_id}: either prefixes or tensors are wanted")
    for step_id, step in found.steps.items():
        if step.part not in found.parts:
            raise BadDefinitionError(f"{where}: steps.{step_id}.part: there is no part {step.part!r}")
    return found


def architecture_of(
    config: Mapping[str, Any], own: Sequence[Architecture] = (), use: str | None = None
) -> Architecture:
    """Returns the architecture of a checkpoint: by its use, its exact name, a shipped pattern, or `own`.

    Args:
        config: What read_config gives of a checkpoint.
        own: Architectures that count besides the shipped ones.
        use: What the checkpoint is used for; None: what its folder says.

    Raises:
        BadInputError: The checkpoint cannot be used for that.
        BadDefinitionError: The configuration names no architecture, or (UnsupportedCheckpointError) an unknown one.
    """
    name = architecture_name(config)
    families = [*architectures(), *own]
    if wanted := said_use(config, name) if use is None else use:
        fitting = {known.use: known for known in families_of(config, own) if known.use}
        if wanted in fitting:
            return fitting[wanted]
        if use is not None:
            uses = ", ".join(fitting) or "none"
            raise BadInputError(f"a checkpoint of {name} has no use {wanted!r}; it has: {uses}")
    for known in families:
        if name in known.names:
            return known
    for known in families:
        if covering(name, [known]) is not None:
            return known
    if PIPELINE in config:
        pipelines = ", ".join(name for known in families for name in known.names if name.endswith("Pipeline"))
        raise UnsupportedCheckpointError(f"{MODEL_INDEX}: {name} is not served; of diffusers' pipelines: {pipelines}")
    names = ", ".join(sorted({name for known in families for name in known.names if name != "*"}))
    code = "; it needs code of its own, which is never run" if "auto_map" in config else ""
    raise UnsupportedCheckpointError(
        f"config.json: architectures: {name!r} is not known{code}; known: {names}; yours: --architectures FOLDER"
    )


def families_of(config: Mapping[str, Any], own: Sequence[Architecture] = ()) -> list[Architecture]:
    """Returns all architectures that a checkpoint may be used as, whatever its folder says.

    Raises:
        BadDefinitionError: The configuration names no architecture.
    """
    name = architecture_name(config)
    families = [*architectures(), *own]
    return [known for known in families if any(fnmatchcase(name, pattern) for pattern in known.names)]


def covering(name: str, families: Iterable[Architecture]) -> str | None:
    """Returns the first pattern of some families that stands for a name, or None; those for one use do not count."""
    patterns = (pattern for known in families if not known.use for pattern in known.names)
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def architecture_name(config: Mapping[str, Any]) -> str:
    """Returns the name of the architecture in a configuration.

    Raises:
        BadDefinitionError: The configuration names no architecture.
    """
    if isinstance(model := config.get("model_cfg"), dict):
        layers = value_at("vision_cfg.layers", model)
        return "open_clip:resnet" if isinstance(layers, list) else "open_clip:vit"
    match config.get("architectures"):
        case [str(name), *_]:
            return name
    raise BadDefinitionError("config.json: architectures: names no architecture")
