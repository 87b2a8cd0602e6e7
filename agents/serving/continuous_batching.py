"""Texts being written on one module: requests join and leave between tokens; all that write take each step together."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from s2m3.agents.serving.detokenizer import Detokenizer
from s2m3.agents.serving.module import Generator, TokenSequence
from s2m3.schemas.errors import BadInputError, ModuleFailedError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.generation import NO_OPTIONS, common_length
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["BatcherCallbacks", "ContinuousBatcher", "Item", "write_all"]


@dataclass(slots=True)
class Item:
    """Complete work and its times on our clock."""

    work: Work
    arrived: float
    deadline: float
    #: nobody waits for it any more
    dropped: bool = False

    @property
    def key(self) -> tuple[bytes, str]:
        """Which step of which request it is, whatever the attempt."""
        return self.work.request, self.work.step


class BatcherCallbacks(Protocol):
    """What the runner does for its modules."""

    def tried(self, work: Work, call: Callable[[], Any]) -> Any:
        """Returns what the call returns, or the error that it raised as one of ours."""

    def finish(self, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        """Sends the outputs on."""

    def fail(self, item: Item, error: S2M3Error) -> None:
        """Answers with an error."""

    def send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        """Sends a piece to the requester; returns False where there is no room for it now."""


@dataclass(slots=True)
class _Waiting:
    item: Item
    prepared: Any
    limit: int
    #: bytes of keys and values that it may need in the end
    need: int


@dataclass(slots=True)
class _Active:
    item: Item
    row: TokenSequence
    detokenizer: Detokenizer
    need: int
    began: float
    #: its share of the time that steps took, and the most that took one together
    ms: float = 0.0
    batch: int = 1
    #: what the requester was sent for this attempt: pieces, and the text they make
    attempt: int = 1
    seq: int = 0
    sent: str = ""


class ContinuousBatcher:
    """The requests that a generator is writing for, and those that wait for room in its cache.

    Args:
        node: Ours, for timings.
        module: Writes; only the runner's thread touches it.
        hands: The runner's.
    """

    def __init__(self, node: str, module: Generator, callbacks: BatcherCallbacks) -> None:
        self._node = node
        self._module = module
        self._callbacks = callbacks
        self._waiting: deque[_Waiting] = deque()
        self._active: list[_Active] = []
        #: milliseconds that the last finished request took of the device
        self.last_ms: float | None = None

    @property
    def items(self) -> list[Item]:
        """What is being written, or waits for room in the cache."""
        return [*(active.item for active in list(self._active)), *(waiting.item for waiting in list(self._waiting))]

    @property
    def free_slots(self) -> int:
        """How many more may be taken in."""
        return self._module.max_batch - len(self._active) - len(self._waiting)

    def step(self, new: Sequence[Item]) -> None:
        """Takes requests in and writes one token of each: then other modules have their turn."""
        for item in new:
            self._take_in(item)
        self._let_go(time.monotonic())
        began = time.monotonic()
        if self._active:
            rows = [active.row for active in self._active]
            failed = self._callbacks.tried(self._active[0].item.work, partial(self._module.advance, rows))
            if isinstance(failed, S2M3Error):
                self._fail_all(failed)
        self._admit()  # their first token comes with their beginning
        self._count(began)
        for active in self._active:
            active.detokenizer.take(active.row.tokens, said_end=active.row.ended)
            self._send_piece(active)
        self._finish([active for active in self._active if active.detokenizer.ended])

    # ---- in -----------------------------------------------------------------------------------------------------

    def _take_in(self, item: Item) -> None:
        waiting = self._callbacks.tried(item.work, partial(self._prepare, item))
        if isinstance(waiting, S2M3Error):
            self._callbacks.fail(item, waiting)
        else:
            self._waiting.append(waiting)

    def _prepare(self, item: Item) -> _Waiting:
        module, options = self._module, item.work.hop.options or NO_OPTIONS
        prepared = module.prepare(item.work.inputs)
        most = module.most_tokens(prepared)
        if options.max_tokens is not None and options.max_tokens > most:
            raise BadInputError(f"options.max_tokens: {options.max_tokens} are too many: at most {most} fit here")
        limit = options.max_tokens or min(module.usual_tokens, most)
        need = module.need_bytes(prepared, limit)
        if limit < 1 or need > module.cache_bytes:
            raise BadInputError(
                f"{limit} tokens after this input need {need / 1e6:.1f} MB of keys and values; "
                f"{module.cache_bytes / 1e6:.1f} are allowed"
            )
        return _Waiting(item, prepared, limit, need)

    def _admit(self) -> None:
        """Begins those that fit, in order: texts in one batch are all as long as the longest, so is their cache."""
        while self._waiting:
            first = self._waiting[0]
            needs = [first.need, *(active.need for active in self._active)]
            if len(needs) * max(needs) > self._module.cache_bytes:
                return
            self._waiting.popleft()
            options = first.item.work.hop.options or NO_OPTIONS
            began = time.monotonic()
            row = self._callbacks.tried(first.item.work, partial(self._module.begin, first.prepared, options))
            if isinstance(row, S2M3Error):
                self._callbacks.fail(first.item, row)
                continue
            detokenizer = Detokenizer(self._module.text, options.stop, first.limit)
            self._active.append(_Active(first.item, row, detokenizer, first.need, began))

    # ---- out ----------------------------------------------------------------------------------------------------

    def _let_go(self, now: float) -> None:
        """Ends what nobody waits for any more."""
        gone = [a for a in self._active if a.item.dropped or a.item.deadline <= now]
        late = [(a.item, f"the deadline passed after {len(a.row.tokens)} tokens") for a in gone]
        self._leave(gone)
        out = [w for w in self._waiting if w.item.dropped or w.item.deadline <= now]
        late += [(w.item, "the deadline passed while it waited for room in the cache") for w in out]
        self._waiting = deque(w for w in self._waiting if w not in out)
        for item, why in late:
            if not item.dropped:
                self._callbacks.fail(item, RequestTimeoutError(why))

    def _leave(self, gone: list[_Active]) -> None:
        if gone:
            self._active = [active for active in self._active if active not in gone]
            self._module.drop([active.row for active in gone])

    def _fail_all(self, error: S2M3Error) -> None:
        """A step failed for all that took it: whoever asked tries again, elsewhere if there is an elsewhere."""
        gone = self._active
        self._leave(gone)
        for active in gone:
            self._callbacks.fail(active.item, ModuleFailedError(error.detail))

    def _count(self, began: float) -> None:
        share = (time.monotonic() - began) * 1000 / max(1, len(self._active))
        for active in self._active:
            active.ms += share
            active.batch = max(active.batch, len(self._active))

    def _send_piece(self, active: _Active) -> None:
        text, work = active.detokenizer.text, active.item.work
        if work.attempt != active.attempt:  # asked for once more while it is being written: told from the beginning
            active.attempt, active.seq, active.sent = work.attempt, 0, ""
        if not work.hop.stream or text == active.sent:
            return
        at = common_length(active.sent, text)
        if self._callbacks.send_piece(work, active.seq, at, text[at:]):
            active.seq += 1
            active.sent = text

    def _finish(self, ended: list[_Active]) -> None:
        self._leave(ended)
        now = time.monotonic()
        for active in ended:
            self.last_ms = active.ms
            queued_ms, run_ms = (active.began - active.item.arrived) * 1000, (now - active.began) * 1000
            timing = Timing(self._node, queued_ms, run_ms, active.batch)
            self._callbacks.finish(active.item, {self._module.generates: active.detokenizer.text}, timing)


def write_all(module: Generator, batch: Sequence[Any]) -> list[dict[str, Value]]:
    """Returns the text of each prepared item, written together, by the module's own settings."""
    rows = [module.begin(prepared, NO_OPTIONS) for prepared in batch]
    limits = [min(module.usual_tokens, module.most_tokens(prepared)) for prepared in batch]
    going = [row for row, limit in zip(rows, limits, strict=True) if not row.ended and len(row.tokens) < limit]
    while going:
        module.advance(going)
        still = [(r, n) for r, n in zip(rows, limits, strict=True) if r in going and not r.ended]
        kept = [row for row, limit in still if len(row.tokens) < limit]
        module.drop([row for row in going if row not in kept])
        going = kept
    module.drop(rows)
    return [{module.generates: module.text(row.tokens)} for row in rows]
