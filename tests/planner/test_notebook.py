"""examples/paper.ipynb runs, and shows what it showed when its outputs were kept (`python -m tests.notebook`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from s2m3.planner.solving.integer_program import is_available
from s2m3.schemas import extras
from tests.notebook import run_notebook

NOTEBOOK = Path(__file__).parents[2] / "examples" / "paper.ipynb"


def _outputs(notebook: dict[str, Any]) -> list[Any]:
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.skipif(not is_available() or bool(extras.missing("plot")), reason="needs highspy and matplotlib")
def test_the_notebook_shows_what_it_has_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made, kept = _outputs(run_notebook(NOTEBOOK)), _outputs(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    assert made == kept
    assert sum("image/svg+xml" in str(output) for output in kept) == 3
