"""What a folder in sentence-transformers' format says beside config.json: the steps after the network, prompts, limits.

The files: modules.json, `config.json` of each step (1_Pooling, 2_Dense), config_sentence_transformers.json and
sentence_bert_config.json. No weights are read.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.json_files import read_json, read_json_list
from s2m3.schemas.errors import BadInputError

__all__ = ["SENTENCE", "dense_files", "modules_of", "pools", "read_sentence_folder"]

#: Key under which a configuration that was read has what the folder says.
SENTENCE = "sentence_transformers_folder"
#: A folder inside the checkpoint, `2_Dense`: nothing that leads out of it.
_FOLDER = re.compile(r"\w[\w. -]*")
_LIMITS, _SETTINGS, _MODULES = "sentence_bert_config.json", "config_sentence_transformers.json", "modules.json"


def read_sentence_folder(folder: Path) -> dict[str, Any]:
    """Returns {SENTENCE: what the folder says}; an empty table for another folder.

    `modules` lists the steps: `kind` (the last part of the class's name), `path` and `config`; `settings` is
    config_sentence_transformers.json, `limits` sentence_bert_config.json.

    Raises:
        BadInputError: A file cannot be read; the text names the file.
    """
    there = [name for name in (_MODULES, _SETTINGS) if (folder / name).is_file()]
    if not there:
        return {}
    steps = read_json_list(folder / _MODULES) if _MODULES in there else []
    return {
        SENTENCE: {
            "modules": [_step(folder, step) for step in steps],
            "settings": _object(folder / _SETTINGS),
            "limits": _object(folder / _LIMITS),
        }
    }


def _step(folder: Path, step: Mapping[str, Any]) -> dict[str, Any]:
    path = str(step.get("path") or "")
    if path and not _FOLDER.fullmatch(path):
        raise BadInputError(f"{_MODULES} names the path {path[:80]!r}, which is no folder of the checkpoint")
    kind = str(step.get("type")).rpartition(".")[2]
    return {"kind": kind, "path": path, "config": _object(folder / path / "config.json") if path else {}}


def _object(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def modules_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the steps that a configuration's folder says; none for another folder."""
    found: list[dict[str, Any]] = config.get(SENTENCE, {}).get("modules", [])
    return found


def pools(config: Mapping[str, Any]) -> bool:
    """Returns whether a checkpoint is a sentence encoder by its folder: one of its steps pools tokens."""
    return any(step["kind"] == "Pooling" for step in modules_of(config))


def dense_files(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns step's path -> its weight file, for the steps that have weights: linear layers after the pooling."""
    dense = [step["path"] for step in modules_of(config) if step["kind"] == "Dense"]
    return {path: f"{path}/model.safetensors" for path in dense}
