"""Options of a checkpoint's module, as `task add --option NAME=VALUE` gives them: they go into its configuration."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.adapters import ADAPTER, read_adapter_config
from s2m3.schemas.checkpoints.processors import processor_class_name
from s2m3.schemas.definitions import Definition, ModuleSpec
from s2m3.schemas.errors import BadInputError, UnsupportedCheckpointError

__all__ = ["check_task_prompt", "with_options"]

#: Processors of families whose texts begin with a task's own prompt, and an example of one.
_TASK_PROMPTS = {"DonutProcessor": "<s_cord-v2>"}


def with_options(definition: Definition | None, given: Sequence[str]) -> Definition | None:
    """Returns a definition one of whose modules has options in its configuration: `prompt_name=query`.

    Args:
        definition: Of a checkpoint; None where a file defines the model.
        given: NAME=VALUE; `true`, `false` and numbers are JSON's, anything else is a text. They are for the one module,
            or for the one that generates a text.

    Raises:
        BadInputError: The model has no such module or a definition of its own, something is no NAME=VALUE, or a folder
            is no adapter that is read.
    """
    if not given:
        return definition
    spec = _module(definition)
    if definition is None or spec is None:
        raise BadInputError(
            "--option is for a checkpoint of one part, or for the part that writes a text; "
            "a definition sets the `config` of each module"
        )
    pairs = [one.partition("=") for one in given]
    if wrong := [name for name, is_set, _ in pairs if not is_set or not name]:
        raise BadInputError(f"--option takes NAME=VALUE, not {wrong[0][:80]!r}")
    config = {name: _json_or_text(value) for name, _, value in pairs}
    if ADAPTER in config and (adapter := Path(str(config[ADAPTER]))).is_dir():
        read_adapter_config(adapter)
        config[ADAPTER] = str(adapter.resolve())
    fresh = spec.model_copy(update={"config": {**spec.config, **config}})
    fresh = fresh.model_copy(update={"id": f"{spec.id[:-7]}-{fresh.identity[:6]}"})  # other options: another module
    steps = {
        name: step.model_copy(update={"module": fresh.id}) if step.module == spec.id else step
        for name, step in definition.model.steps.items()
    }
    modules = [fresh if module.id == spec.id else module for module in definition.modules]
    model = definition.model.model_copy(update={"steps": steps})
    return definition.model_copy(update={"model": model, "modules": modules})


def _module(definition: Definition | None) -> ModuleSpec | None:
    """Returns the module that options are for; None unless there is exactly one."""
    if definition is None:
        return None
    modules = definition.modules
    found = modules if len(modules) == 1 else [module for module in modules if module.generates is not None]
    return found[0] if len(found) == 1 else None


def _json_or_text(value: str) -> Any:
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, bool | int | float) else value


def check_task_prompt(folder: Path, definition: Definition) -> None:
    """Checks that a checkpoint whose texts begin with a prompt of the task has one.

    Args:
        folder: The checkpoint's folder.
        definition: The checkpoint's definition.

    Raises:
        UnsupportedCheckpointError: It has no prompt; the text says how to give one.
    """
    example = _TASK_PROMPTS.get(processor_class_name(folder) or "")
    if example is None or any("prompt" in module.config for module in definition.modules):
        return
    raise UnsupportedCheckpointError(
        f"{folder.name} begins each text with the prompt of a task: --option prompt='{example}', as its card says"
    )
