"""What a task would cost before it is added: the `data` of responses to `control/preview`. JSON, MQTT 3.1.1."""

from pydantic import Field

from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.messages import ErrorBody

__all__ = ["KnownModel", "ModelList", "PreviewedModule", "TaskPreview"]


class PreviewedModule(Document):
    """A module of the model that would answer."""

    id: Id
    role: str = ""
    #: of one copy, on the first of its nodes, 10^6 bytes
    memory_mb: float = Field(ge=0)
    #: the nodes that would hold it
    nodes: list[Id] = Field(default_factory=list)
    #: whether no node holds it for another task now
    is_new: bool = True
    #: whether its weights would be mapped from the disk; memory_mb is then what it takes beside them
    mapped: bool = False


class TaskPreview(Document):
    """What would happen if a task were added or changed: nothing has."""

    #: the model that would answer, and its place among the models of the task: 0 for the best
    model: Id
    rank: int = Field(default=0, ge=0)
    modules: list[PreviewedModule] = Field(default_factory=list)
    #: memory that all nodes together would hold more, 10^6 bytes; 0 if all of its modules are there
    added_mb: float = Field(ge=0)
    #: other task -> why it would get a lesser model than now, or none
    displaced: dict[Id, str] = Field(default_factory=dict)


class KnownModel(Document):
    """A model that the planner has a definition of."""

    id: Id
    description: str = ""
    #: name -> kind
    inputs: dict[str, str] = Field(default_factory=dict)
    answer: list[str] = Field(default_factory=list)
    #: of one copy of each of its modules, 10^6 bytes
    memory_mb: float = Field(ge=0)
    #: the part of it in modules that no node holds now
    added_mb: float = Field(ge=0)
    #: why no node can load one of its modules; absent: each has a node that can
    error: ErrorBody | None = None


class ModelList(Document):
    """The models that a task may name."""

    models: list[KnownModel] = Field(default_factory=list)
