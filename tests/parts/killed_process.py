"""A process of side_process.py that is killed, as by the system when memory is short, and leaves a file behind."""

import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2m3.agents.parts.side_process import answer_questions


def _answer(_: dict[str, Any]) -> Mapping[str, Any]:
    (Path(tempfile.mkdtemp()) / "model.onnx").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


if __name__ == "__main__":
    answer_questions(_answer)
