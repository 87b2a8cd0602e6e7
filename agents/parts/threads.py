"""The threads that read, write and hash files of parts, so that the loop does not wait for a disk."""

import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.schemas.errors import ModuleFailedError, S2M3Error

__all__ = ["FileThread"]

_log = structlog.get_logger(__name__)
T = TypeVar("T")
#: Requests come first: what the threads do is done when nothing else is.
_NICENESS = 10


class FileThread:
    """One thread that does jobs in order, and hands what comes of them to the loop.

    Args:
        name: Of the thread.
        loop: The loop in whose thread the results are taken.
    """

    def __init__(self, name: str, loop: Loop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], T], done: Callable[[T], None], failed: Callable[[S2M3Error], None]) -> None:
        """Does a job in the thread; in the loop's thread `done` gets the result, or `failed` the error.

        Args:
            job: The job.
            done: Takes the result.
            failed: Takes the error; one that is no S2M3Error comes as a ModuleFailedError.
        """

        def run() -> None:
            try:
                result = job()
            except S2M3Error as error:
                known = error
            except Exception as error:  # noqa: BLE001  # the thread's one broad except: transformers reads strange configurations
                if not isinstance(error, OSError):
                    _log.exception("part_job_failed")
                known = ModuleFailedError(f"{type(error).__name__}: {error}"[:300])
            else:
                self._loop.call(lambda: done(result))
                return
            self._loop.call(lambda: failed(known))

        self._jobs.put(run)

    def stop(self, wait_s: float = 0.0) -> None:
        """Ends the thread after the jobs so far; waits for them for some seconds at most."""
        self._jobs.put(None)
        self._thread.join(wait_s)

    def _run(self) -> None:
        if sys.platform == "linux":  # there it is the thread's own niceness, elsewhere that of the whole process
            os.nice(_NICENESS)
        while (job := self._jobs.get()) is not None:
            job()
