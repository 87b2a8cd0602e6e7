"""Runs a notebook's code cells without Jupyter: one after another in one namespace, with what each prints and shows.

`python -m tests.notebook examples/paper.ipynb` runs it and keeps the outputs in the file.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["run_notebook"]


def run_notebook(path: Path) -> dict[str, Any]:
    """Returns the notebook with the outputs of this run; it runs in its own folder and writes elsewhere.

    Raises:
        Exception: What a cell raised.
    """
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    number = 0
    with contextlib.chdir(path.parent):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                number += 1
                cell["execution_count"] = number
                cell["outputs"] = _outputs("".join(cell["source"]), names, number)
    return notebook


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Runs one cell; returns what it printed, and the value of its last expression as Jupyter would show it."""
    tree = ast.parse(source)
    shown = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(tree, "<cell>", "exec"), names)  # noqa: S102  # the notebook is ours
        value = eval(compile(shown, "<cell>", "eval"), names) if shown is not None else None  # noqa: S307  # as above
    outputs: list[dict[str, Any]] = []
    if out.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": out.getvalue().splitlines(keepends=True)})
    if value is not None:
        data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_svg_"):
            data["image/svg+xml"] = value._repr_svg_().splitlines(keepends=True)  # Jupyter's protocol
        outputs.append({"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}})
    return outputs


def main() -> None:
    """Runs a notebook and writes it with its outputs."""
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        notebook = run_notebook(path)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
