"""Whisper's decoder in class `text-generator`: language, timestamps, and sounds that are longer than one window.

A long sound is cut into windows of 30 s that overlap by 10 s, as transformers' pipeline does it with
`chunk_length_s=30`: each is written by itself, with times, and Whisper's tokenizer joins them where they overlap.
Nothing that was written decides what the encoder hears, so that encoder and decoder stay apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from s2m3.agents.checkpoints.generation.text_generator import Prepared, TextGenerator
from s2m3.agents.checkpoints.sounds.whisper_prompt import WhisperPrompt
from s2m3.agents.checkpoints.sounds.windows import Windows
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.decoding import DecodedSequence, Start, new_cache
from s2m3.agents.modules.ports import tensor_port
from s2m3.agents.serving.module import default_tokens
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["Times", "Transcriber", "times_of"]


@dataclass(frozen=True)
class Times:
    """How a checkpoint tells times, and the windows in which it hears.

    Args:
        windows: Of its feature extractor.
        first: The token of 0.00 s; None if the checkpoint tells no times.
        precision: Seconds from one token of time to the next.
        always: Whether times are told without being asked for.
        settings: What of generation_config.json transformers' rule for times needs.
    """

    windows: Windows
    first: int | None
    precision: float
    always: bool
    settings: Any

    def rule(self, prompt: int) -> WhisperTimeStampLogitsProcessor:
        """Returns transformers' rule for times behind a prompt of so many tokens."""
        return WhisperTimeStampLogitsProcessor(self.settings, begin_index=prompt)

    def told(self, tokens: Sequence[int]) -> bool:
        """Returns whether any token is a time."""
        return self.first is not None and max(tokens, default=0) >= self.first


def times_of(opened: CheckpointPart, ends: Sequence[int], config: Any) -> Times:
    """Returns how a checkpoint tells times.

    Args:
        opened: The decoder's part.
        ends: The tokens that end a text.
        config: The decoder's configuration.

    Raises:
        ModuleFailedError: preprocessor_config.json cannot be read.
    """
    windows = Windows.of_checkpoint(opened)
    silent = opened.value("generation.no_timestamps_token_id")
    latest = opened.value("generation.max_initial_timestamp_index")
    settings = SimpleNamespace(no_timestamps_token_id=silent, eos_token_id=ends[0], max_initial_timestamp_index=latest)
    return Times(
        windows=windows,
        first=silent + 1 if isinstance(silent, int) else None,
        precision=windows.seconds / config.max_source_positions,
        always=opened.value("generation.return_timestamps") is True,
        settings=settings,
    )


@dataclass(eq=False)
class _Transcript:
    """The text of one sound, window by window.

    Args:
        states: What the decoder cross-attends to, (windows, states, width).
        options: Those of the request.
        limit: Most tokens of one window.
        start: The token that every window's text starts from.
        times: Whether times are told.
        segments: Returns the segments of tokens; None if they were not asked for.
        row: The text of the window that is being written.
        written: The tokens of the windows before it.
        cut: Whether one of these was cut at the limit.
    """

    states: torch.Tensor
    options: Options
    limit: int
    start: int
    times: bool
    segments: Callable[[Sequence[int]], list[Value]] | None
    row: DecodedSequence
    written: list[list[int]] = field(default_factory=list)
    cut: bool = False
    heard: Mapping[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> list[int]:
        """All tokens so far; of several windows each begins with the start token."""
        if len(self.states) == 1:
            return self.row.tokens
        windows = [*self.written, self.row.tokens]
        return [token for window in windows for token in (self.start, *window)]

    @property
    def is_last(self) -> bool:
        return len(self.written) + 1 == len(self.states)

    @property
    def is_written(self) -> bool:
        """Whether the window's text has ended, by itself or at the limit."""
        return self.row.ended or len(self.row.tokens) >= self.limit

    @property
    def ended(self) -> bool:
        """Whether the text is complete. One window that was cut is not: that ends by the request's limit."""
        return self.is_last and (self.row.ended if len(self.states) == 1 else self.is_written)

    @property
    def outputs(self) -> dict[str, Value]:
        cut = len(self.states) > 1 and (self.cut or (self.is_written and not self.row.ended))
        segments = self.segments(self.tokens) if self.segments is not None else []
        return {**self.heard, "segments": segments, **({"finished": "length"} if cut else {})}


class Transcriber(TextGenerator):
    """`hidden` (windows, states, width) to `text`, with `language`, `segments` and `finished`.

    `language` is a code such as `de`, that of the first window; empty if the checkpoint is English-only. `segments` are
    [{"start", "end", "text"}], times in seconds, as Whisper itself says them; empty if times were not asked for.
    """

    def __init__(self, *given: Any, times: Times, whisper: WhisperPrompt, **named: Any) -> None:
        super().__init__(*given, **named)
        self._times = times
        self._whisper = whisper

    def prepare(self, inputs: Mapping[str, Value]) -> Prepared:
        """Returns what came from the encoder.

        Raises:
            BadInputError: Of another shape, or several windows for a tokenizer that cannot join them.
        """
        given = tensor_port(inputs, "hidden", (None, None, None))
        if len(given) > 1 and not hasattr(self._tokenizer, "_decode_asr"):
            raise BadInputError(
                f"over {self._times.windows.seconds:.0f} s of sound: this checkpoint's tokenizer cannot join windows"
            )
        return Prepared(self._whisper.ids, torch.from_numpy(np.array(given)))

    # ---- how much is written --------------------------------------------------------------------------------------

    def usual_tokens_after(self, prepared: Prepared) -> int:
        """Returns the most tokens of all windows if a request names no number."""
        return self._of_all(prepared, super().usual_tokens_after(prepared))

    def most_tokens(self, prepared: Prepared) -> int:
        """Returns what the network's positions leave behind the prompt, in all windows."""
        return self._of_all(prepared, super().most_tokens(prepared))

    def need_bytes(self, prepared: Prepared, tokens: int) -> int:
        """Returns the keys and values of one window: the windows are written one after another."""
        return super().need_bytes(prepared, min(tokens, super().most_tokens(prepared)))

    @staticmethod
    def _of_all(prepared: Prepared, of_one: int) -> int:
        windows = len(prepared.given)
        return of_one if windows == 1 else windows * (of_one + 1)

    # ---- window by window -----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def begin(self, prepared: Prepared, options: Options) -> Any:
        """Reads the first window and says its first token."""
        asked = options.max_tokens or default_tokens(self, prepared)
        limit = min(asked, super().usual_tokens_after(prepared) if options.max_tokens is None else asked)
        limit = min(limit, super().most_tokens(prepared))
        asked_times = options.timestamps or self._times.always
        times = (asked_times or len(prepared.given) > 1) and self._times.first is not None
        row = self._row(prepared.given[:1], options, limit, times=times)
        found = _Transcript(
            prepared.given,
            options,
            limit,
            start=self._whisper.ids[0],
            times=times,
            segments=self._segments if asked_times and times else None,
            row=row,
            heard=row.outputs,
        )
        self._go_on(found)
        return found

    def advance(self, rows: Sequence[Any]) -> None:
        """Says one more token of each; where a window is written, the first of the next."""
        super().advance([found.row for found in rows])
        for found in rows:
            self._go_on(found)

    def drop(self, rows: Sequence[Any]) -> None:
        """Forgets texts."""
        super().drop([found.row for found in rows])

    def _go_on(self, found: _Transcript) -> None:
        while found.is_written and not found.is_last:
            super().drop([found.row])
            found.cut = found.cut or not found.row.ended
            found.written.append(found.row.tokens)
            at = len(found.written)
            found.row = self._row(found.states[at : at + 1], found.options, found.limit, times=found.times)

    @torch.inference_mode()
    def _row(self, states: torch.Tensor, options: Options, limit: int, *, times: bool) -> DecodedSequence:
        return self._decoding.begin(self._started(states, times=times), options, limit)

    def _started(self, states: torch.Tensor, *, times: bool) -> Start:
        """Returns the start of a window: the language as the decoder hears it after the start token, or as given.

        What the decoder kept of the start token is used again.
        """
        prompt, cache = self._whisper, None
        ids = [*prompt.ids]
        if times:
            ids = [token for token in ids if token != self._times.settings.no_timestamps_token_id]
        if prompt.detects:
            cache = new_cache(crossing=True)
            logits = self._forward(states, input_ids=torch.tensor([ids[:1]]), past_key_values=cache)
            languages = sorted(prompt.languages)
            ids[1] = languages[int(logits[0, languages].argmax())]
        rules = [self._times.rule(len(ids))] if times else []
        read = ids if cache is None else ids[1:]
        return Start(
            ids=torch.tensor([read]), states=states, prompt=ids, cache=cache, rules=rules,
            outputs={"language": prompt.language(ids)},
        )  # fmt: skip

    # ---- what it says ---------------------------------------------------------------------------------------------

    def text(self, tokens: Sequence[int]) -> str:
        """Returns what tokens say: of several windows, joined where they overlap."""
        in_windows = tokens[:1] == [self._whisper.ids[0]] or self._times.told(tokens)
        if not in_windows or not hasattr(self._tokenizer, "_decode_asr"):
            return super().text(tokens)
        text: str = self._joined(tokens, times=False)[0]
        return text.strip()

    def _segments(self, tokens: Sequence[int]) -> list[Value]:
        chunks = self._joined(tokens, times=True)[1]["chunks"]
        found = [(*chunk["timestamp"], chunk["text"].strip()) for chunk in chunks]
        return [{"start": start, "end": end, "text": text} for start, end, text in found]

    def _joined(self, tokens: Sequence[int], *, times: bool) -> Any:
        outputs = [
            {"tokens": np.array([window]), "stride": stride}
            for window, stride in self._times.windows.strides(tokens, self._whisper.ids[0])
        ]
        return self._tokenizer._decode_asr(  # noqa: SLF001  # the one way that the pipeline has
            outputs,
            return_timestamps=times or None,
            return_language=None,
            time_precision=self._times.precision,
        )
