"""Work on a part in a process of its own, whose time and memory are not the agent's; it ends with the agent.

The question comes as JSON on stdin, the answer goes as JSON to stdout.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError, S2M3Error
from s2m3.schemas.parts import PartWanted

__all__ = ["answer_questions", "ask_process", "module_in", "question_of"]

_NICENESS = 15
#: Linux's number of the option by which a process is sent a signal when the thread that started it ends.
_PR_SET_PDEATHSIG = 1


def question_of(spec: ModuleSpec, sources: CheckpointSources, runtime: str) -> dict[str, Any]:
    """Returns what a process has to know to open a module's part."""
    return {
        "wanted": PartWanted.of(spec, [runtime]).model_dump(mode="json", by_alias=True),
        "folders": [str(folder.absolute()) for folder in sources.folders],
        "architectures": [one.model_dump(mode="json", by_alias=True) for one in sources.architectures],
    }


def module_in(question: Mapping[str, Any]) -> tuple[ModuleSpec, CheckpointSources]:
    """Returns the module that a question of `question_of` is of, and the checkpoints among which its part is."""
    architectures = tuple(Architecture.model_validate(one) for one in question["architectures"])
    sources = CheckpointSources(tuple(map(Path, question["folders"])), architectures=architectures)
    return PartWanted.model_validate(question["wanted"]).module, sources


def ask_process(module: str, question: Mapping[str, Any], longest_s: float, what: str) -> dict[str, Any]:
    """Runs a Python module that calls `answer_questions`, and returns its answer. It waits for the process.

    Args:
        module: The module's name.
        question: What it is asked, as JSON.
        longest_s: Seconds after which it is killed.
        what: What cannot be done if it fails, for the error.

    Raises:
        ModuleFailedError: It failed, and why; or it took too long.
    """
    command = [sys.executable, "-m", module]
    given = json.dumps(question).encode()
    try:
        with tempfile.TemporaryDirectory(prefix="s2m3-") as folder:  # its files go with it, also if it is killed
            done = subprocess.run(  # noqa: S603  # our own module
                command,
                input=given,
                capture_output=True,
                timeout=longest_s,
                check=False,
                env={**os.environ, "TMPDIR": folder},
            )
    except subprocess.TimeoutExpired as error:
        raise ModuleFailedError(f"{what}: it took more than {longest_s:.0f} s") from error
    except OSError as error:
        raise ModuleFailedError(f"{what}: {error}"[:300]) from error
    try:
        found = json.loads(done.stdout)
        if "error" in found:
            raise ModuleFailedError(str(found["error"]))
    except (ValueError, TypeError) as error:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        killed = f"its process ended with {done.returncode}" if done.returncode else str(error)
        raise ModuleFailedError(f"{what}: {' '.join(said) or killed}"[:300]) from error
    answer: dict[str, Any] = found
    return answer


def answer_questions(answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Answers the question on stdin: the main function of the process.

    Args:
        answer: Makes the answer of the question; an S2M3Error or OSError of it becomes the error that the asker gets.
    """
    os.nice(_NICENESS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    question = json.loads(sys.stdin.buffer.read())
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        found = answer(question)
    except (S2M3Error, OSError) as error:
        found = {"error": error.detail if isinstance(error, S2M3Error) else str(error)}
    with out:
        json.dump(found, out)
