"""A folder in diffusers' format: model_index.json, and a folder of each component's configuration and weights."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.json_files import read_json
from s2m3.schemas.errors import BadInputError

__all__ = ["DIFFUSERS", "MODEL_INDEX", "PIPELINE", "components_in", "pipeline_of", "read_pipeline", "weight_names"]

#: The file that makes a folder a pipeline.
MODEL_INDEX = "model_index.json"
#: Key under which a configuration that was read has the pipeline's components.
PIPELINE = "pipeline"
#: Start of the name of a network that is a class of diffusers.
DIFFUSERS = "diffusers."
#: A component's name, which is that of its folder: nothing that leads out of the checkpoint.
_NAME = re.compile(r"[a-z]\w*")
_CONFIGS = ("config.json", "scheduler_config.json")
#: Components with a configuration whose weights no part reads: they have none, or are not run.
_UNREAD = ("scheduler", "safety_checker", "image_encoder")
_LIBRARY_AND_CLASS = 2


def read_pipeline(folder: Path) -> dict[str, Any]:
    """Returns what the folder's JSON files say: {"architectures": [the pipeline's class], PIPELINE: its components}.

    A component is {"library", "class", "config"}, by its name (`unet`); one that the pipeline goes without is left out.

    Raises:
        BadInputError: A file cannot be read, or names no class or a component that is no folder of the checkpoint.
    """
    index = read_json(folder / MODEL_INDEX)
    if not isinstance(index.get("_class_name"), str):
        raise BadInputError(f"{MODEL_INDEX} holds no _class_name")
    components = {}
    for name, named in index.items():
        if isinstance(named, list) and len(named) == _LIBRARY_AND_CLASS and all(isinstance(one, str) for one in named):
            if not _NAME.fullmatch(name):
                raise BadInputError(f"{MODEL_INDEX} names the component {name[:80]!r}, which is no folder")
            components[name] = {"library": named[0], "class": named[1], "config": _configuration(folder / name)}
    return {"architectures": [index["_class_name"]], PIPELINE: components}


def _configuration(folder: Path) -> dict[str, Any]:
    found = next((folder / name for name in _CONFIGS if (folder / name).is_file()), None)
    return read_json(found) if found is not None else {}


def pipeline_of(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Returns the components of a configuration that read_pipeline gave; none for another checkpoint."""
    found: Mapping[str, Mapping[str, Any]] = config.get(PIPELINE, {})
    return found


def components_in(config: Mapping[str, Any], starts: Iterable[str] | None = None) -> list[str]:
    """Returns the components with weights; with `starts`, those to which such starts of tensors' names lead.

    Args:
        config: What read_pipeline gives.
        starts: Starts of names on disk: `unet.` or `vae.decoder.`.
    """
    wanted = None if starts is None else {start.partition(".")[0] for start in starts}
    found = [name for name, component in pipeline_of(config).items() if component["config"] and name not in _UNREAD]
    return [name for name in found if wanted is None or name in wanted]


def weight_names(component: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the names that a component's weights have in its folder: in one file, and the index of several."""
    stem = "diffusion_pytorch_model" if component["library"] == "diffusers" else "model"
    return f"{stem}.safetensors", f"{stem}.safetensors.index.json"
