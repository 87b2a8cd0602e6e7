"""The tasks as models of a door: the use of each, by the inputs and the answer that its route names."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from s2m3.client import Client
from s2m3.schemas.errors import BadInputError, UnknownTaskError
from s2m3.schemas.messages import RouteDoc

__all__ = ["ServedTask", "Use", "served", "task_of", "tasks_of"]

#: The use of a task at a door; tasks of the use `other` are not served there.
Use = Literal["completion", "embedding", "transcription", "speech", "other"]
_TAG = ":latest"
_PICTURES = ("image", "images")


@dataclass(frozen=True)
class ServedTask:
    """A task with the route that the planner published for it."""

    name: str
    doc: RouteDoc

    @cached_property
    def use(self) -> Use:
        """The use of the task."""
        first = self.doc.answer[0] if self.doc.answer else ""
        kinds = self.doc.inputs.values()
        if not first or first == "image":
            return "other"
        if first == "audio":
            return "speech"
        if first == "embedding":
            return "embedding" if any(kind in ("text", "texts") for kind in kinds) else "other"
        return "transcription" if "audio" in kinds else "completion"

    @property
    def takes_pictures(self) -> bool:
        """Whether the task takes a picture, or several."""
        return any(kind in _PICTURES for kind in self.doc.inputs.values())

    @property
    def takes_chats(self) -> bool:
        """Whether the task takes chat messages."""
        return "chat" in self.doc.inputs.values()

    @property
    def streams(self) -> bool:
        """Whether the answer is a text that is generated token by token."""
        return any(self.doc.streams(step) for step in self.doc.steps)

    @property
    def is_ready(self) -> bool:
        """Whether every step has a ready copy."""
        return bool(self.doc.steps) and all(step.replicas for step in self.doc.steps.values())

    @property
    def capabilities(self) -> list[str]:
        """The capabilities as Ollama names them: completion, vision, tools, embedding."""
        if self.use != "completion":
            return [self.use] if self.use != "other" else []
        return [
            "completion",
            *(["vision"] if self.takes_pictures else []),
            *(["tools"] if self.takes_chats else []),
        ]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that change with the modules of the task."""
        modules = "\n".join(f"{step} {hop.module}" for step, hop in sorted(self.doc.steps.items()))
        return hashlib.sha256(f"{self.doc.model}\n{modules}".encode()).hexdigest()

    def of_kind(self, *kinds: str) -> str | None:
        """Returns the name of the first input of some kinds; None if there is none."""
        return next((name for name, kind in self.doc.inputs.items() if kind in kinds), None)


def tasks_of(client: Client) -> Mapping[str, ServedTask]:
    """Returns the tasks that doors serve, by name."""
    found = {name: ServedTask(name, doc) for name, doc in sorted(client.tasks().items())}
    return {name: task for name, task in found.items() if task.use != "other"}


def task_of(client: Client, model: object) -> ServedTask:
    """Returns the task that a request names as its model; Ollama's tag `:latest` is no part of the name.

    Raises:
        BadInputError: The model is no text.
        UnknownTaskError: There is no such task.
    """
    if not isinstance(model, str) or not model:
        raise BadInputError("model is the name of a task")
    name = model.removesuffix(_TAG)
    doc = client.tasks().get(name)
    if doc is None:
        raise UnknownTaskError(f"there is no task {name[:100]!r}")
    return ServedTask(name, doc)


def served(task: ServedTask, use: Use) -> ServedTask:
    """Returns the task if it is of this use.

    Raises:
        BadInputError: The task is of another use.
    """
    if task.use != use:
        raise BadInputError(f"the task {task.name} is not for {use}: it is for {task.use}")
    return task
