"""Desired tasks: the models that are to be served, the best first, with default inputs."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, model_validator

from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.protocol import Since, is_from_the_bus
from s2m3.schemas.specs import Definition, read_spec

__all__ = ["StandIn", "TaskSpec"]


class StandIn(Document):
    """A further model of a task, which answers while those before it cannot."""

    model: Id
    #: the model's definition, if none of the planner's files has it
    definition: Definition | None = None
    #: values of the inputs that the task's own do not fit, in the form of a plain request's inputs
    inputs: dict[str, Any] = {}


class TaskSpec(Document):
    """A desired task: a model that is to be served, with default inputs."""

    model: Id
    #: the model's definition, if none of the planner's files has it
    definition: Definition | None = None
    #: default inputs, in the form of a plain request's inputs
    inputs: dict[str, Any] = {}
    #: default generation options, see s2m3.schemas.wire.generation.Options
    options: dict[str, Any] = {}
    max_replicas: int = Field(default=1, ge=1, le=64)
    deadline_s: float = Field(default=30.0, gt=0, le=86_400)
    #: least score of an answer; below, the requester puts null in the answer's place: none of these (`s2m3 calibrate`)
    threshold: Annotated[float | None, Since(1)] = None
    #: nodes in order of preference; what a place is worth: docs/placement.md
    prefer: Annotated[list[Id], Since(1)] = []
    #: how far rounding between nodes may put a tensor's numbers, as a share of its largest (at least 1); 0: not at all
    tolerance: Annotated[float, Field(ge=0, le=1), Since(1)] = 0.0
    #: whether the weights of its models may be mapped from the disk where they do not fit into memory: then it is slow
    map_weights: Annotated[bool, Since(1)] = False
    #: further models, the best first: the best that can answers
    stand_ins: Annotated[list[StandIn], Since(1)] = []
    _unreadable: dict[int, str] = PrivateAttr(default_factory=dict)

    @property
    def ranks(self) -> tuple["TaskSpec | StandIn", ...]:
        """The task's models, the best first, each with its definition."""
        return (self, *self.stand_ins)

    @property
    def sources(self) -> frozenset[str]:
        """The sources that the embedded definitions of the task's models name."""
        definitions = [one.definition for one in self.ranks if one.definition is not None]
        return frozenset(module.source for definition in definitions for module in definition.modules)

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Rank of a model -> why its embedded definition cannot be used."""
        return self._unreadable

    @model_validator(mode="wrap")
    @classmethod
    def _tolerate_definitions(cls, given: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Keeps a task with invalid embedded definitions, without these definitions."""
        if not (is_from_the_bus(info) and isinstance(given, dict)):
            return handler(given)
        further = given.get("stand_ins")
        read = [_with_definition_read(one) for one in (given, *(further if isinstance(further, list) else ()))]
        document = read[0][0]
        if isinstance(further, list):
            document = {**document, "stand_ins": [one for one, _ in read[1:]]}
        task = handler(document)
        task._unreadable = {rank: why for rank, (_, why) in enumerate(read) if why}  # noqa: SLF001  # of this class
        return task


def _with_definition_read(given: Any) -> tuple[Any, str]:
    """Returns a task or stand-in with its definition read, and why the definition was left out; "" if it was not."""
    if not isinstance(given, dict) or given.get("definition") is None:
        return given, ""
    definition = read_spec(Definition, given["definition"])
    if isinstance(definition, Definition):
        return {**given, "definition": definition}, ""
    return {**given, "definition": None}, f"definition.{definition}"
