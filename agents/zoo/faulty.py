"""A no-op encoder that hangs, crashes or eats memory when its input says so: for the tests of what protects a node.

No shipped definition asks for it, and it is not built unless the agent's environment has FAULTY_MODULES=1.
"""

import ctypes
import os
import threading
from collections.abc import Mapping, Sequence

from s2m3.agents.modules.ports import port
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["FaultyEncoder", "load_faulty"]

_ALLOWED = "FAULTY_MODULES"


class FaultyEncoder:
    """Passes `data` on as `code`; the texts `hang`, `spin`, `crash` and `hold <MB>` it does instead."""

    nbytes = 0
    light = False
    max_batch = 8

    def __init__(self, memory_mb: float) -> None:
        self._held = [_memory(memory_mb)]

    def prepare(self, inputs: Mapping[str, Value]) -> Value:
        """Returns the item's `data`."""
        return port(inputs, "data", "data")

    def run(self, batch: Sequence[Value], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `code` of each item, if it returns."""
        for data in batch:
            if isinstance(data, str):
                self._do(data)
        return [{"code": data} if "code" in wanted else {} for data in batch]

    def _do(self, word: str) -> None:
        match word.split():
            case ["hang"]:
                threading.Event().wait()
            case ["spin"]:  # as native code that keeps Python's lock: no thread of this process runs any more
                ctypes.PyDLL(None).sleep(3600)
            case ["crash"]:
                ctypes.string_at(0)
            case ["hold", megabytes]:
                self._held.append(_memory(float(megabytes)))


def _memory(megabytes: float) -> bytearray:
    """Memory that is really taken: written, not only asked for."""
    return bytearray(b"1") * int(megabytes * 1e6)


def load_faulty(spec: ModuleSpec, *, loads: bool) -> FaultyEncoder:
    """Builds a `noop-encoder` with `faults`, or crashes.

    Raises:
        ModuleFailedError: This agent was not started for tests.
    """
    if os.environ.get(_ALLOWED) != "1":
        raise ModuleFailedError(f"module {spec.id}: faults are for tests ({_ALLOWED}=1)")
    if not loads:
        ctypes.string_at(0)
    return FaultyEncoder(spec.memory_mb)
