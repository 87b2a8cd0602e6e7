"""Generation with the network's own cache: many texts at once, each beginning and ending when it does.

Texts of different lengths share a batch if the network honours padding (agents/modules/padding.py): the shorter ones
are padded on the left, masked there, and count their own positions. With any other network, only texts of equal length
share a batch, which needs no padding. So what one text says does not depend on those beside it, but for the order of
sums.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

from s2m3.agents.modules.sequences import DecodedSequence, Stop
from s2m3.agents.modules.token_rules import NO_RULES, TokenRules
from s2m3.schemas.wire.generation import Options

__all__ = ["DecodedSequence", "Decoding", "Start", "Stop", "TokenChooser", "keeps_all", "new_cache"]

#: Arguments of the network -> logits of the last position, (texts, vocabulary).
Forward = Callable[..., torch.Tensor]
#: Largest difference of a padded text's logits from those of the text alone, as a share of the largest logit (at least
#: 1), with which a network still counts as one that honours padding.
_SAME = 1e-5
#: Keys and values of each layer, each (texts, heads, tokens, width).
Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Start:
    """What a text starts from.

    Args:
        ids: Tokens of the prompt, (1, tokens); or
        embeds: Their vectors, where a picture's tokens are among them, (1, tokens, width).
        states: What the decoder cross-attends to, (1, states, width).
        prompt: All tokens of the prompt, which settings such as a repetition penalty look at; empty: those of `ids`.
        cache: What the network kept of tokens before `ids`; None if there are none.
        outputs: Further outputs of the item, which are known before its text.
        rules: Logits processors of transformers that are applied behind those of the checkpoint's settings.
    """

    ids: torch.Tensor | None = None
    embeds: torch.Tensor | None = None
    states: torch.Tensor | None = None
    prompt: Sequence[int] = ()
    cache: Any = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[Any] = ()


@dataclass(slots=True)
class _Batch:
    """Texts whose keys and values lie in the same tensors."""

    rows: list[DecodedSequence]
    own: Layers
    crossing: Layers
    states: torch.Tensor | None
    #: columns on the left that are not a text's own, per text
    pads: list[int]

    @property
    def length(self) -> int:
        return self.own[0][0].shape[2]

    def padded(self, columns: int) -> "_Batch":
        if not columns:
            return self
        pad = (0, 0, columns, 0)
        own = [(torch.nn.functional.pad(k, pad), torch.nn.functional.pad(v, pad)) for k, v in self.own]
        return _Batch(self.rows, own, self.crossing, self.states, [n + columns for n in self.pads])

    def without(self, gone: Sequence[DecodedSequence]) -> "_Batch | None":
        kept = [i for i, row in enumerate(self.rows) if row not in gone]
        if len(kept) == len(self.rows) or not kept:
            return self if kept else None
        cut = min(self.pads[i] for i in kept)
        return _Batch(
            [self.rows[i] for i in kept],
            [(k[kept, :, cut:], v[kept, :, cut:]) for k, v in self.own],
            [(k[kept], v[kept]) for k, v in self.crossing],
            None if self.states is None else self.states[kept],
            [self.pads[i] - cut for i in kept],
        )


def _ids(row: DecodedSequence) -> torch.Tensor:
    """Returns prompt and text so far, (1, tokens)."""
    return torch.tensor([[*row.prompt, *row.tokens]])


class TokenChooser:
    """Chooses the next token of each text: the likeliest, or one drawn by the text's own random numbers.

    Args:
        stop: When texts end, and what is never in them.
        rules: Further settings of the checkpoint.
    """

    def __init__(self, stop: Stop, rules: TokenRules) -> None:
        self._stop, self._rules = stop, rules

    def row(self, options: Options, prompt: Sequence[int], limit: int, start: Start) -> DecodedSequence:
        """Returns a text without a token.

        Args:
            options: Those of the request.
            prompt: All tokens of the prompt.
            limit: Most tokens of the text, which some settings need.
            start: What the text starts from: its further outputs and rules count here.
        """
        row = DecodedSequence(options, random.Random(options.seed), outputs=start.outputs)  # noqa: S311  # keeps no secret
        row.prompt = prompt
        processors = self._rules.processors(len(prompt), limit)
        processors.extend(start.rules)
        row.processors = processors or None
        row.temperature = self._rules.temperature(options.temperature)
        row.warpers = self._rules.warpers(options)
        return row

    def say(self, rows: Sequence[DecodedSequence], logits: torch.Tensor, *, first: bool = False) -> None:
        """Adds a token to each text, or ends it.

        Args:
            rows: The texts.
            logits: (texts, vocabulary).
            first: Whether it is their first token.
        """
        logits = logits.float()
        logits[:, self._stop.never] = -torch.inf
        if first:
            logits[:, self._stop.never_first] = -torch.inf
        for row, token, line in zip(rows, logits.argmax(-1).tolist(), logits, strict=True):
            scores = line if row.processors is None else row.processors(_ids(row), line[None])[0]
            if row.temperature > 0:
                row.last = self._drawn(scores, row)
            else:
                row.last = token if scores is line else int(scores.argmax())
            row.ended = row.last in self._stop.ends
            if not row.ended:
                row.tokens.append(row.last)

    def _drawn(self, logits: torch.Tensor, row: DecodedSequence) -> int:
        """Draws a token: one number of the text's own row of random numbers for each, whoever else is in the batch."""
        scores = logits[None].double() / row.temperature
        scores = (scores if row.warpers is None else row.warpers(_ids(row), scores))[0]
        reached = torch.softmax(scores, -1).cumsum(-1)
        at = int(torch.searchsorted(reached, row.draw.random() * reached[-1], right=True))
        return min(at, len(logits) - 1)


class Decoding:
    """The texts that one network is saying.

    Args:
        forward: Calls the network; it takes `input_ids` or `inputs_embeds`, `past_key_values`, and where they are
            needed `states`, `attention_mask` and `position_ids`.
        stop: When texts end.
        pads: Whether the network honours padding (`honours_padding`); None measures it with the first two texts of
            different lengths.
        rules: Further settings of the checkpoint.
    """

    def __init__(
        self,
        forward: Forward,
        stop: Stop,
        *,
        pads: bool | None = None,
        rules: TokenRules = NO_RULES,
    ) -> None:
        self._forward = forward
        self._chooser = TokenChooser(stop, rules)
        self._pads = pads
        self._batches: list[_Batch] = []

    @torch.inference_mode()
    def begin(self, start: Start, options: Options, limit: int = 1) -> DecodedSequence:
        """Reads a start and says its first token.

        Args:
            start: What the text starts from.
            options: Those of the request.
            limit: Most tokens of the text, which some settings need.
        """
        prompt = start.prompt or ([] if start.ids is None else start.ids[0].tolist())
        row = self._chooser.row(options, prompt, limit, start)
        given = {"input_ids": start.ids} if start.embeds is None else {"inputs_embeds": start.embeds}
        crossing = {} if start.states is None else {"states": start.states}
        cache = start.cache or new_cache(crossing=start.states is not None)
        logits = self._forward(**given, **crossing, past_key_values=cache)
        self._say([row], logits, first=True)
        own, crossed = _layers(cache)
        self._batches.append(_Batch([row], own, crossed, start.states, [0]))
        return row

    def adopt(self, row: DecodedSequence, cache: Any) -> None:
        """Takes over a text whose prompt was read elsewhere.

        Args:
            row: The text, with its first token.
            cache: What the network kept of its prompt; every layer keeps all of it.
        """
        own, crossed = _layers(cache)
        self._batches.append(_Batch([row], own, crossed, None, [0]))

    @torch.inference_mode()
    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each of these: all that began, have not ended and were not dropped."""
        self._join()
        for batch in self._batches:
            if any(row in rows for row in batch.rows):
                self._step(batch)

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts and what was kept for them."""
        left = (batch.without(rows) for batch in self._batches)
        self._batches = [batch for batch in left if batch is not None]

    def _join(self) -> None:
        """Makes one batch of those that cross-attend to equally many states, and are equally long if that matters."""
        if self._pads is None:
            self._pads = self._measured()
        alike: dict[tuple[int, int], list[_Batch]] = {}
        for batch in self._batches:
            states = 0 if batch.states is None else batch.states.shape[1]
            alike.setdefault((states, 0 if self._pads else batch.length), []).append(batch)
        self._batches = [_joined(batches) for batches in alike.values()]

    def _measured(self) -> bool | None:
        """Compares the shortest text padded to the longest with the same text alone; None while all are equally long.

        A network that cannot read a padded text at all does not honour padding.
        """
        short = min(self._batches, key=lambda batch: batch.length, default=None)
        if short is None or not (columns := max(batch.length for batch in self._batches) - short.length):
            return None
        alone, _ = self._next(short)
        try:
            padded, _ = self._next(short.padded(columns))
        except (TypeError, ValueError, IndexError, RuntimeError):
            return False
        return bool((alone - padded).abs().max() <= _SAME * max(1.0, float(alone.abs().max())))

    def _step(self, batch: _Batch) -> None:
        logits, cache = self._next(batch)
        batch.own, _ = _layers(cache)
        self._say(batch.rows, logits)

    def _next(self, batch: _Batch) -> tuple[torch.Tensor, Any]:
        """Returns the logits behind each text's last token, and the cache with that token in it."""
        own: Any = DynamicCache(batch.own)
        cache = own if batch.states is None else EncoderDecoderCache(own, DynamicCache(batch.crossing))
        extra = {} if batch.states is None else {"states": batch.states}
        if any(batch.pads):
            pads = torch.tensor(batch.pads)[:, None]
            extra["attention_mask"] = (torch.arange(batch.length + 1) >= pads).long()
            extra["position_ids"] = batch.length - pads
        ids = torch.tensor([[row.last] for row in batch.rows])
        return self._forward(input_ids=ids, past_key_values=cache, **extra), cache

    def _say(self, rows: Sequence[DecodedSequence], logits: torch.Tensor, *, first: bool = False) -> None:
        self._chooser.say(rows, logits, first=first)


def new_cache(*, crossing: bool) -> Any:
    """Returns an empty cache of transformers; `crossing` is whether the network cross-attends."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if crossing else DynamicCache()


def keeps_all(cache: Any) -> bool:
    """Returns whether every layer of a decoder's cache keeps keys and values of all tokens, and nothing else."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def _layers(cache: Any) -> tuple[Layers, Layers]:
    """Returns the keys and values of a cache: the text's own, and those that it cross-attends to."""
    if not isinstance(cache, EncoderDecoderCache):
        return [(layer.keys, layer.values) for layer in cache.layers], []
    return _layers(cache.self_attention_cache)[0], _layers(cache.cross_attention_cache)[0]


def _joined(batches: Sequence[_Batch]) -> _Batch:
    """Returns one batch of several that cross-attend to equally many states, copying each once."""
    if len(batches) == 1:
        return batches[0]
    longest = max(batch.length for batch in batches)
    parts = [batch.padded(longest - batch.length) for batch in batches]
    states = [part.states for part in parts if part.states is not None]
    return _Batch(
        [row for part in parts for row in part.rows],
        _stacked([part.own for part in parts]),
        _stacked([part.crossing for part in parts]),
        torch.cat(states) if states else None,
        [pad for part in parts for pad in part.pads],
    )


def _stacked(parts: Sequence[Layers]) -> Layers:
    return [(torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in zip(*parts, strict=True)]
