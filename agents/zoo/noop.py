"""Modules without weights that pass bytes on: for benches and fault tests. Imports nothing heavy, computes nothing."""

import time
from collections.abc import Mapping, Sequence

from pydantic import Field

from agents.zoo.checks import Config, port, read_config
from schemas.definitions import ModuleSpec
from schemas.values import Value

__all__ = ["NoopEncoder", "NoopHead", "load_encoder", "load_head"]


class NoopConfig(Config):
    """How long an item takes: fault tests need work that is still under way when its node dies."""

    sleep_ms: float = Field(default=0.0, ge=0.0, le=600_000.0)
    #: of bytes that come in, pass on only so many: an encoder's output is smaller than its input
    keep_bytes: int | None = Field(default=None, ge=0)


class NoopEncoder:
    """Passes `data` on as `code`, after waiting `sleep_ms` per item."""

    nbytes = 0
    max_batch = 8

    def __init__(self, sleep_ms: float, keep_bytes: int | None = None) -> None:
        self._seconds = sleep_ms / 1000
        self.light = not sleep_ms
        self._keep = keep_bytes

    def prepare(self, inputs: Mapping[str, Value]) -> Value:
        """Returns the item's `data`."""
        data = port(inputs, "data", "data")
        return data[: self._keep] if isinstance(data, bytes) else data

    def run(self, batch: Sequence[Value], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `code` of each item: what came in."""
        if self._seconds:
            time.sleep(self._seconds * len(batch))
        return [{"code": data} if "code" in wanted else {} for data in batch]


class NoopHead:
    """Answers with what its two encoders passed on: `echo` = [left, right]."""

    nbytes = 0
    light = True
    max_batch = 8

    def prepare(self, inputs: Mapping[str, Value]) -> list[Value]:
        """Returns [left, right]."""
        return [port(inputs, "left", "data"), port(inputs, "right", "data")]

    def run(self, batch: Sequence[list[Value]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `echo` of each item."""
        return [{"echo": pair} if "echo" in wanted else {} for pair in batch]


def load_encoder(spec: ModuleSpec) -> NoopEncoder:
    """Builds class `noop-encoder`."""
    config = read_config(spec, NoopConfig)
    return NoopEncoder(config.sleep_ms, config.keep_bytes)


def load_head(spec: ModuleSpec) -> NoopHead:
    """Builds class `noop-head`."""
    read_config(spec, Config)
    return NoopHead()
