"""The shipped modules in one process, in torch: each task's steps one after another, each module loaded once."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.schemas.definitions import shipped_catalogue

__all__ = ["TASKS", "TorchModules"]

#: Task -> its input of a file.
TASKS = {"retrieval": "image", "classification": "image", "transcription": "audio"}


class TorchModules:
    """Answers tasks in this process.

    Args:
        tasks: The tasks.
        only: The modules to load; None loads all of the tasks.
    """

    def __init__(self, tasks: Iterable[str] = TASKS, only: Iterable[str] | None = None) -> None:
        catalogue = shipped_catalogue()
        self.models = {task: catalogue.models[task] for task in tasks}
        every = {step.module for model in self.models.values() for step in model.steps.values()}
        names = every if only is None else every & {*only}
        self._modules: dict[str, Any] = {
            name: registry.load(catalogue.modules[name], CheckpointSources()) for name in sorted(names)
        }
        self._locks = {name: threading.Lock() for name in names}  # modules are called by one thread at a time

    def run(self, module: str, inputs: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
        """Returns the wanted outputs of one item."""
        found = self._modules[module]
        prepared = found.prepare(inputs)
        with self._locks[module]:
            if hasattr(found, "generates"):
                return write_all(found, [prepared])[0]
            outputs: dict[str, Any] = found.run([prepared], frozenset(wanted))[0]
            return outputs

    def ask(self, task: str, inputs: Mapping[str, Any]) -> Any:
        """Returns a task's answer: the label, or the text."""
        model = self.models[task]
        known = {f"input.{name}": value for name, value in inputs.items()}
        outputs: dict[str, Any] = {}
        for name, step in model.steps.items():
            given = {port: known[source] for port, source in step.inputs.items()}
            outputs = self.run(step.module, given, model.wanted_outputs(name))
            known |= {f"{name}.{port}": value for port, value in outputs.items()}
        return outputs[model.answer[0]]
