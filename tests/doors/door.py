"""A door as a process, as a user starts it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import WAIT_S

__all__ = ["Door", "opened"]

_URL = re.compile(r"url=(http://\S+)")


@dataclass(frozen=True)
class Door:
    """A running `s2m3 serve`."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def memory_mb(self) -> float:
        """What the process takes of the memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1000


@contextmanager
def opened(port: int, folder: Path, *flags: str, **variables: str) -> Iterator[Door]:
    """Starts a door to the broker on a port, and waits until it listens.

    Args:
        port: Of the broker.
        folder: For its log.
        flags: Of `s2m3 serve`.
        variables: S2M3_… -> value.
    """
    words = [sys.executable, "-m", "s2m3", "serve", "--port", str(port), "--http-port", "0", *flags]
    env = {name: value for name, value in os.environ.items() if not name.startswith("S2M3_")} | variables
    path = folder / "door.log"
    with path.open("w") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    try:
        deadline = time.monotonic() + WAIT_S
        while (found := _URL.search(path.read_text())) is None:
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.05)
        yield Door(found[1], process)
    finally:
        process.kill()
        process.wait()
