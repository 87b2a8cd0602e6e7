"""An interrupted command ends with 130, wherever the interrupt hits."""

import subprocess
import sys
from pathlib import Path

import pytest

_ENDED = """
from s2m3 import command_line

def interrupted(*_, **__):
    {where}

command_line.command_line = {command}
command_line.run("models")
"""
#: As the interrupt of a namedtuple's making: Python then means to die of SIGINT, whoever catches the exception.
_IN_MADE_CODE = 'exec("raise KeyboardInterrupt")'


@pytest.mark.parametrize("where", ["raise KeyboardInterrupt", _IN_MADE_CODE], ids=["in a command", "in made code"])
@pytest.mark.parametrize("command", ["lambda _: interrupted", "interrupted"], ids=["while it runs", "while it starts"])
def test_an_interrupt_ends_with_130_and_no_traceback(tmp_path: Path, where: str, command: str) -> None:
    """Run with `-m`: a script's end does not depend on where it was interrupted."""
    (tmp_path / "ended.py").write_text(_ENDED.format(where=where, command=command))
    ended = subprocess.run([sys.executable, "-m", "ended"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (130, "")
