"""Modules without weights that pass bytes on: for benches and fault tests. Imports nothing heavy, computes nothing."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from s2m3.agents.modules.ports import Config, port, read_config
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["NoopEncoder", "NoopHead", "NoopWriter", "load_encoder", "load_head", "load_writer"]


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


@dataclass(eq=False, slots=True)
class _Words:
    words: list[str]
    draw: random.Random | None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class NoopWriter:
    """Writes its `text` back word by word, each step taking `sleep_ms`; with a temperature, words drawn from it.

    A token is a word's bytes as a number. Words count for a byte of the cache each.
    """

    nbytes = 0
    light = False
    max_batch = 8
    generates = "text"
    usual_tokens = 1_000

    def __init__(self, sleep_ms: float, cache_mb: float) -> None:
        self._seconds = sleep_ms / 1000
        self.cache_bytes = int(cache_mb * 1e6)

    def prepare(self, inputs: Mapping[str, Value]) -> list[str]:
        """Returns the item's words."""
        return list(port(inputs, "text", "text").split()[: self.usual_tokens])

    def run(self, batch: Sequence[list[str]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `text` of each item."""
        return write_all(self, batch) if "text" in wanted else [{} for _ in batch]

    def most_tokens(self, prepared: list[str]) -> int:
        """Returns a number that no item comes near."""
        return 10 * max(1, len(prepared))

    def need_bytes(self, prepared: list[str], tokens: int) -> int:
        """Returns a byte for each word."""
        return len(prepared) + tokens

    def begin(self, prepared: list[str], options: Options) -> _Words:
        """Says the first word."""
        words = _Words(prepared, random.Random(options.seed) if options.draws else None)  # noqa: S311  # repeatable
        self._say(words)
        return words

    def advance(self, rows: Sequence[_Words]) -> None:
        """Says the next word of each row."""
        time.sleep(self._seconds)
        for row in rows:
            self._say(row)

    def _say(self, row: _Words) -> None:
        if len(row.tokens) >= len(row.words):
            row.ended = True
            return
        word = row.draw.choice(row.words) if row.draw else row.words[len(row.tokens)]
        row.tokens.append(int.from_bytes(word.encode()))

    def drop(self, rows: Sequence[_Words]) -> None:
        """Forgets nothing: a row holds all there is of it."""

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the words of tokens."""
        return " ".join(token.to_bytes((token.bit_length() + 7) // 8).decode() for token in tokens)


def load_encoder(spec: ModuleSpec) -> NoopEncoder:
    """Builds class `noop-encoder`."""
    config = read_config(spec, NoopConfig)
    return NoopEncoder(config.sleep_ms, config.keep_bytes)


def load_head(spec: ModuleSpec) -> NoopHead:
    """Builds class `noop-head`."""
    read_config(spec, Config)
    return NoopHead()


def load_writer(spec: ModuleSpec) -> NoopWriter:
    """Builds class `noop-writer`."""
    return NoopWriter(read_config(spec, NoopConfig).sleep_ms, spec.cache_mb)
