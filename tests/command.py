"""The `s2m3` command, as typed: as a process, or in this one where what it does is no matter of processes."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from s2m3.cli import main

__all__ = ["s2m3", "s2m3_here"]

#: A task whose modules load for minutes on a busy machine is waited for.
_LONGEST_S = 300
Done = subprocess.CompletedProcess[str]


def s2m3(*words: str, port: int | None = None, check: bool = False, env: dict[str, str] | None = None) -> Done:
    """Runs it as a process.

    Args:
        words: What is typed.
        port: Of the broker.
        check: Raise if it does not exit with 0.
        env: Set besides ours.
    """
    where = [] if port is None else ["--port", str(port)]
    command = [sys.executable, "-m", "s2m3", *words, *where]
    env = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=check, env=env)


def s2m3_here(*words: str, port: int | None = None) -> Done:
    """Runs its entry point in this process, a second cheaper: for commands that read files and print, and one-shots.

    An agent runs as a process: it forks before it reads anything, and its child would go on as a second one of tests.
    """
    if words[:1] == ("agent",):
        return s2m3(*words, port=port)
    words = words if port is None else (*words, "--port", str(port))
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["s2m3", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(["s2m3", *words], code, out.getvalue(), err.getvalue())
