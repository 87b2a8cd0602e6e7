"""An encoder, and a writer, that hang, crash or eat memory when their input says so.

Agents find its classes as those of an installed package: tests/guard/installed is on their path.
"""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from s2m3.agents.zoo.noop import NoopWriter
from s2m3.modules import ModuleSource, ModuleSpec, Value, port

__all__ = ["FaultyEncoder", "FaultyWriter", "crash", "load", "load_writer"]


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


class FaultyWriter(NoopWriter):
    """Writes its text back, four words a second; at the word `crash` it crashes."""

    def advance(self, rows: Sequence[Any]) -> None:
        """Says the next word of each row, if it returns."""
        if any(row.words[len(row.tokens) : len(row.tokens) + 1] == ["crash"] for row in rows):
            ctypes.string_at(0)
        super().advance(rows)


def _memory(megabytes: float) -> bytearray:
    """Memory that is really taken: written, not only asked for."""
    return bytearray(b"1") * int(megabytes * 1e6)


def load(spec: ModuleSpec, source: ModuleSource) -> FaultyEncoder:  # noqa: ARG001  # it has no files
    """Builds class `faulty-encoder`."""
    return FaultyEncoder(spec.memory_mb)


def load_writer(spec: ModuleSpec, source: ModuleSource) -> FaultyWriter:  # noqa: ARG001
    """Builds class `faulty-writer`."""
    return FaultyWriter(250.0, spec.cache_mb)


def crash(spec: ModuleSpec, source: ModuleSource) -> FaultyEncoder:  # noqa: ARG001
    """Crashes where class `unloadable-encoder` is to be built."""
    ctypes.string_at(0)
    raise AssertionError
