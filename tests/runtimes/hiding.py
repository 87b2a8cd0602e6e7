"""A process without torch: its packages are hidden from it."""

from pathlib import Path

#: What hides packages from a process that has one of some words in its command: they are not found.
_HIDDEN = """import sys
if {words!r} is None or set({words!r}) & set(sys.orig_argv):
    for name in ('torch', 'transformers', 'onnx'):
        sys.modules[name] = None
"""


def hide_torch(folder: Path, words: list[str] | None = None) -> str:
    """Writes what hides torch, transformers and onnx; returns the PYTHONPATH of processes that are to lack them.

    Args:
        folder: Where it is written.
        words: Only processes with one of these words in their command lack them; None: all.
    """
    (folder / "sitecustomize.py").write_text(_HIDDEN.format(words=words))
    return f"{folder}:{Path(__file__).parents[2]}"
