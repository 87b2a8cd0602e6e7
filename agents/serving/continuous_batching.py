"""Continuous batching of text generation: requests join and leave between decoding steps, which all share."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from s2m3.agents.serving.calls import OutOfMemoryError
from s2m3.agents.serving.detokenizer import Detokenizer
from s2m3.agents.serving.items import NOT_PREPARED, Item
from s2m3.agents.serving.module import Generator, TokenSequence, default_tokens, row_outputs
from s2m3.agents.serving.rounding import widened
from s2m3.schemas.errors import BadInputError, ModuleFailedError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.generation import NO_OPTIONS, Options, common_length
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["BatcherCallbacks", "ContinuousBatcher", "seeded", "write_all"]


class BatcherCallbacks(Protocol):
    """The functions of the runner that a batcher calls."""

    def call_module(self, work: Work, call: Callable[[], Any]) -> Any:
        """Returns the call's result; an error that it raises is returned as an S2M3Error."""

    def finish(self, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        """Sends the outputs to the next steps or the requester."""

    def fail(self, item: Item, error: S2M3Error) -> None:
        """Answers with an error."""

    def send_piece(self, work: Work, seq: int, at: int, text: str) -> bool:
        """Sends a piece of streamed text to the requester; returns False if the outgoing queue is too long."""


@dataclass(slots=True)
class _Sent:
    """The pieces sent for an attempt: their number, and the text that they make."""

    attempt: int = 1
    seq: int = 0
    text: str = ""
    #: whether this text is being written once more, so that nothing is to be sent until it is longer
    again: bool = False


@dataclass(slots=True)
class _Waiting:
    item: Item
    prepared: Any
    #: most tokens
    limit: int
    #: KV cache when all tokens are written, bytes
    need: int
    #: of a text that was begun before
    sent: _Sent = field(default_factory=_Sent)


@dataclass(slots=True)
class _Active:
    waited: _Waiting
    row: TokenSequence
    detokenizer: Detokenizer
    began: float
    #: its share of the decoding steps' time, milliseconds, and the largest batch that it was in
    ms: float = 0.0
    batch: int = 1

    @property
    def item(self) -> Item:
        return self.waited.item


class ContinuousBatcher:
    """The requests for which a generator is writing, and those that wait for space in its KV cache.

    Args:
        node: The node's name, for timings.
        module: The generator; only the runner's thread calls it.
        callbacks: The runner.
    """

    def __init__(self, node: str, module: Generator, callbacks: BatcherCallbacks) -> None:
        self._node = node
        self._module = module
        self._callbacks = callbacks
        self._waiting: deque[_Waiting] = deque()
        self._active: list[_Active] = []
        #: texts at once: fewer than the module says once so many did not fit into the device's memory
        self._most = module.max_batch
        #: decoding time of the last finished request, milliseconds
        self.last_ms: float | None = None

    @property
    def items(self) -> list[Item]:
        """The items that are being written or wait for space in the KV cache."""
        return [*(active.item for active in list(self._active)), *(waiting.item for waiting in list(self._waiting))]

    @property
    def waiting_keys(self) -> set[tuple[bytes, str]]:
        """The keys of the items that wait for space in the KV cache."""
        return {waiting.item.key for waiting in list(self._waiting)}

    def written_since(self, until: float) -> list[Item]:
        """Returns the items whose text began at a time, monotonic seconds, or earlier."""
        return [a.item for a in list(self._active) if a.began <= until and not a.item.dropped]

    @property
    def free_slots(self) -> int:
        """Number of further items that `step` may be given."""
        return self._most - len(self._active) - len(self._waiting)

    def step(self, new: Sequence[Item]) -> None:
        """Adds items and generates one token of each sequence; the runner may serve other modules between two steps."""
        for item in new:
            self._add(item)
        self._drop_expired(time.monotonic())
        began = time.monotonic()
        if self._active:
            rows = [active.row for active in self._active]
            error = self._callbacks.call_module(self._active[0].item.work, partial(self._module.advance, rows))
            if isinstance(error, OutOfMemoryError) and len(rows) > 1:
                self._begin_again(len(rows) // 2)
            elif isinstance(error, S2M3Error):
                self._fail_all(error)
        self._admit()  # starting a sequence generates its first token
        self._share_time(began)
        for active in list(self._active):
            self._take_text(active)
        self._finish([active for active in self._active if active.detokenizer.ended])

    # ---- joining ------------------------------------------------------------------------------------------------

    def _add(self, item: Item) -> None:
        waiting = self._callbacks.call_module(item.work, partial(self._prepare, item))
        if isinstance(waiting, S2M3Error):
            self._callbacks.fail(item, waiting)
        else:
            self._waiting.append(waiting)

    def _prepare(self, item: Item) -> _Waiting:
        module, options = self._module, item.work.hop.options or NO_OPTIONS
        if options.format is not None and not getattr(module, "follows_formats", False):
            raise BadInputError("options.format: this model's texts follow no format")
        prepared = module.prepare(widened(item.work)) if item.prepared is NOT_PREPARED else item.prepared
        most = module.most_tokens(prepared)
        if options.max_tokens is not None and options.max_tokens > most:
            raise BadInputError(f"options.max_tokens: {options.max_tokens} are too many: at most {most} fit here")
        limit = options.max_tokens or default_tokens(module, prepared)
        need = module.need_bytes(prepared, limit)
        if limit < 1 or need > module.cache_bytes:
            raise BadInputError(
                f"{limit} tokens after this input need {need / 1e6:.1f} MB of keys and values; "
                f"{module.cache_bytes / 1e6:.1f} are allowed"
            )
        return _Waiting(item, prepared, limit, need)

    def _admit(self) -> None:
        """Starts waiting items in order while they fit: the cache is padded to the longest sequence of the batch."""
        while self._waiting and len(self._active) < self._most:
            first = self._waiting[0]
            needs = [first.need, *(active.waited.need for active in self._active)]
            if len(needs) * max(needs) > self._module.cache_bytes:
                return
            self._waiting.popleft()
            options = seeded(first.item.work)
            began = time.monotonic()
            row = self._callbacks.call_module(first.item.work, partial(self._module.begin, first.prepared, options))
            if isinstance(row, OutOfMemoryError) and self._active:  # it waits until one of these has ended
                self._most = len(self._active)
                self._waiting.appendleft(first)
                return
            if isinstance(row, S2M3Error):
                self._callbacks.fail(first.item, row)
                continue
            self._active.append(_Active(first, row, Detokenizer(self._module.text, options.stop, first.limit), began))

    # ---- leaving ------------------------------------------------------------------------------------------------

    def _drop_expired(self, now: float) -> None:
        """Removes items that were dropped, and fails those whose deadline has passed."""
        gone = [a for a in self._active if a.item.dropped or a.item.deadline <= now]
        late = [(a.item, f"the deadline passed after {len(a.row.tokens)} tokens") for a in gone]
        self._remove(gone)
        out = [w for w in self._waiting if w.item.dropped or w.item.deadline <= now]
        late += [(w.item, "the deadline passed while it waited for room in the cache") for w in out]
        self._waiting = deque(w for w in self._waiting if w not in out)
        for item, why in late:
            if not item.dropped:
                self._callbacks.fail(item, RequestTimeoutError(why))

    def _remove(self, gone: list[_Active]) -> None:
        if gone:
            self._active = [active for active in self._active if active not in gone]
            rows = [active.row for active in gone]
            self._callbacks.call_module(gone[0].item.work, partial(self._module.drop, rows))

    def _fail_all(self, error: S2M3Error) -> None:
        """Fails all active items after a failed decoding step; requesters retry, on other nodes if there are any."""
        gone = self._active
        self._remove(gone)
        for active in gone:
            self._callbacks.fail(active.item, ModuleFailedError(error.detail))

    def _begin_again(self, most: int) -> None:
        """Begins all texts again, fewer at once: it is unknown which of them got their token before memory ran out."""
        self._most = most
        begun = [active.waited for active in self._active]
        for waited in begun:
            waited.sent.again = True
        self._remove(list(self._active))
        self._waiting.extendleft(reversed(begun))

    def _share_time(self, began: float) -> None:
        share = (time.monotonic() - began) * 1000 / max(1, len(self._active))
        for active in self._active:
            active.ms += share
            active.batch = max(active.batch, len(self._active))

    def _take_text(self, active: _Active) -> None:
        """Makes text of an item's tokens and sends what is new; where a module cannot, that item alone fails."""
        take = partial(active.detokenizer.take, active.row.tokens, said_end=active.row.ended)
        error = self._callbacks.call_module(active.item.work, take)
        if isinstance(error, S2M3Error):
            self._remove([active])
            self._callbacks.fail(active.item, error)
        else:
            self._send_piece(active)

    def _send_piece(self, active: _Active) -> None:
        text, work, sent = active.detokenizer.text, active.item.work, active.waited.sent
        if work.attempt != sent.attempt:  # sent again meanwhile: the new attempt's stream starts from the beginning
            sent = active.waited.sent = _Sent(work.attempt)
        if not work.hop.stream or text == sent.text or (sent.again and sent.text.startswith(text)):
            return
        at = common_length(sent.text, text)
        if self._callbacks.send_piece(work, sent.seq, at, text[at:]):
            active.waited.sent = _Sent(sent.attempt, sent.seq + 1, text)

    def _finish(self, ended: list[_Active]) -> None:
        self._remove(ended)
        now = time.monotonic()
        for active in ended:
            self.last_ms = active.ms
            queued_ms, run_ms = (active.began - active.item.arrived) * 1000, (now - active.began) * 1000
            timing = Timing(self._node, queued_ms, run_ms, active.batch)
            text, finished = active.detokenizer.text, active.detokenizer.finished
            outputs = {"finished": finished, **row_outputs(active.row), self._module.generates: text}
            self._callbacks.finish(active.item, outputs, timing)


def seeded(work: Work) -> Options:
    """Returns a request's options with a seed: without one, all attempts of a request have the same by its id."""
    options = work.hop.options or NO_OPTIONS
    if options.seed is not None:
        return options
    return options.model_copy(update={"seed": int.from_bytes(work.request[:6])})


def write_all(module: Generator, batch: Sequence[Any]) -> list[dict[str, Value]]:
    """Generates the text of each prepared item in one batch, with the module's default options."""
    rows = [module.begin(prepared, NO_OPTIONS) for prepared in batch]
    limits = [default_tokens(module, prepared) for prepared in batch]
    running = [row for row, limit in zip(rows, limits, strict=True) if not row.ended and len(row.tokens) < limit]
    while running:
        module.advance(running)
        still = [(r, n) for r, n in zip(rows, limits, strict=True) if r in running and not r.ended]
        kept = [row for row, limit in still if len(row.tokens) < limit]
        module.drop([row for row in running if row not in kept])
        running = kept
    module.drop(rows)
    finished = ["stop" if row.ended else "length" for row in rows]
    texts = [module.text(row.tokens) for row in rows]
    return [
        {"finished": why, **row_outputs(row), module.generates: text}
        for row, why, text in zip(rows, finished, texts, strict=True)
    ]
