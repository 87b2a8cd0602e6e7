"""Work on a part in a process of its own."""

import tempfile
from pathlib import Path

import pytest

from s2m3.agents.parts.side_process import ask_process
from s2m3.schemas.errors import ModuleFailedError


def test_one_that_is_killed_leaves_no_file_and_its_end_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # looked up anew
    with pytest.raises(ModuleFailedError, match="cannot be exported: its process ended with -9"):
        ask_process("tests.parts.killed_process", {}, 60.0, "clip cannot be exported")
    assert list(tmp_path.iterdir()) == []
