"""Processes without torch, or without ONNX Runtime: packages are hidden from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

#: What a device without torch lacks, and one that has torch alone.
WITHOUT_TORCH = ("torch", "transformers", "onnx")
WITHOUT_ONNX = ("onnx", "onnxruntime")
#: What hides packages from a process that has a word in its command: they are not found.
_HIDDEN = """import sys
for word, names in {hidden!r}.items():
    if not word or word in sys.orig_argv:
        sys.modules.update(dict.fromkeys(names))
"""


def hide_torch(folder: Path, words: list[str] | None = None) -> str:
    """Hides torch, transformers and onnx, as `hide` does.

    Args:
        folder: Where what hides them is written.
        words: Only processes with one of these words in their command lack them; None: all.
    """
    return hide(folder, dict.fromkeys(words or [""], WITHOUT_TORCH))


def hide(folder: Path, hidden: Mapping[str, Sequence[str]]) -> str:
    """Writes what hides packages; returns the PYTHONPATH of processes that are to lack them.

    Args:
        folder: Where it is written.
        hidden: Word in a process's command -> the packages that are not found there; an empty word: in all.
    """
    (folder / "sitecustomize.py").write_text(
        _HIDDEN.format(hidden={word: tuple(names) for word, names in hidden.items()})
    )
    return f"{folder}:{Path(__file__).parents[2]}"
