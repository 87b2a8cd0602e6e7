"""Gain of batched generation: tokens per second of eight texts together, against the same texts one after another.

Both run in one process with the same weights, alternating, and must generate equal texts. Prints the ratio of medians
and writes JSON. The decoders are Whisper tiny.en's on recorded speech, and a Llama of 58 M random weights on prompts
of 16 tokens.
Run: python bench/generation.py [--rounds N] [--threads N] [--json FILE]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tables import measured_on, quiet_libraries

from s2m3.agents import registry
from s2m3.agents.modules.decoding import Decoding, Start, Stop
from s2m3.agents.serving.module import Generator, TokenSequence
from s2m3.agents.zoo.whisper import SpeechDecoder
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.wire.generation import NO_OPTIONS

_TEXTS = 8
_TOKENS = 48
#: Of the Llama's weights.
_SEED = 1
_SOUNDS = ("hello-world", "quick-brown-fox", "cat-looking")
_SAMPLES = Path(__file__).parents[1] / "s2m3" / "samples"


@dataclass(frozen=True)
class Writer:
    """A decoder with the beginnings of eight texts, each of at most _TOKENS tokens."""

    name: str
    begin: Sequence[Callable[[], TokenSequence]]
    advance: Callable[[Sequence[Any]], None]
    drop: Callable[[Sequence[Any]], None]

    def write(self, which: Sequence[int]) -> list[list[int]]:
        """Generates some of the texts together; returns the tokens of each."""
        rows = [self.begin[i]() for i in which]
        while going := [row for row in rows if not row.ended and len(row.tokens) < _TOKENS]:
            self.drop([row for row in rows if row not in going])
            self.advance(going)
        self.drop(rows)
        return [row.tokens for row in rows]


def _whisper() -> Writer:
    modules = shipped_catalogue().modules
    encoder, decoder = (
        registry.load(modules["whisper-tiny-en-encoder"]),
        registry.load(modules["whisper-tiny-en-decoder"]),
    )
    assert isinstance(decoder, SpeechDecoder)  # noqa: S101  # what the definition says
    sounds = [(_SAMPLES / f"{_SOUNDS[i % len(_SOUNDS)]}.flac").read_bytes() for i in range(_TEXTS)]
    encoded = [encoder.run([encoder.prepare({"audio": sound})], frozenset({"hidden"}))[0] for sound in sounds]
    writes: Generator = decoder
    items = [decoder.prepare(hidden) for hidden in encoded]
    begin = [lambda item=item: writes.begin(item, NO_OPTIONS) for item in items]
    return Writer("whisper-tiny-en-decoder", begin, writes.advance, writes.drop)


def _llama() -> Writer:
    config = transformers.LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        tie_word_embeddings=False,
    )
    torch.manual_seed(_SEED)
    network = transformers.LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)

    def forward(**given: Any) -> torch.Tensor:
        logits: torch.Tensor = network(**given, use_cache=True).logits[:, -1]
        return logits

    decoding = Decoding(forward, Stop(frozenset()))
    starts = [Start(ids=torch.randint(0, 32_000, (1, 16))) for _ in range(_TEXTS)]
    begin = [lambda start=start: decoding.begin(start, NO_OPTIONS) for start in starts]
    return Writer("llama, 58 M random weights", begin, decoding.advance, decoding.drop)


def _measure(writer: Writer, rounds: int) -> dict[str, Any]:
    every = range(_TEXTS)
    apart = [writer.write([i])[0] for i in every]
    equal = writer.write(every) == apart
    tokens = sum(map(len, apart))
    times: dict[str, list[float]] = {"one by one": [], "together": []}
    for _ in range(rounds):
        began = time.perf_counter()
        for i in every:
            writer.write([i])
        between = time.perf_counter()
        writer.write(every)
        times["one by one"].append(between - began)
        times["together"].append(time.perf_counter() - between)
    speeds = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
    return {
        "texts": _TEXTS,
        "tokens": tokens,
        "tokens_per_s": {name: round(speed, 1) for name, speed in speeds.items()},
        "ratio": round(speeds["together"] / speeds["one by one"], 2),
        "equal": equal,
    }


def main() -> None:
    """Measures both decoders and prints a line for each."""
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "generation.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results = {writer.name: _measure(writer, given.rounds) for writer in (_whisper(), _llama())}
    for name, found in results.items():
        speed = found["tokens_per_s"]
        print(
            f"{name}: {found['texts']} texts, {found['tokens']} tokens: one by one {speed['one by one']} tokens/s, "
            f"together {speed['together']}: x{found['ratio']}; texts {'equal' if found['equal'] else 'DIFFER'}"
        )
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(
        json.dumps({"threads": given.threads, "decoders": results, "measured": measured_on([_SEED])}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
