"""Sounds that are longer than one of Whisper's windows."""

from typing import Any

import numpy as np
import pytest
from transformers.pipelines.automatic_speech_recognition import chunk_iter

from s2m3.agents.checkpoints.sounds.windows import Windows
from s2m3.agents.serving.module import default_tokens
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.generation import Options
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.family import LONGEST, definition
from tests.families.speech import SPEECH, sound
from tests.media.files import wav


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("long") / "whisper"
    folder.mkdir()
    next(family for family in SPEECH if family.name == "whisper").make(folder)
    return [loaded(folder.parent, spec) for spec in definition(folder).modules]


def written(decoder: Any, hidden: Any, **options: Any) -> tuple[Any, int]:
    """A transcript, and how many tokens were said before it was complete or as long as it may be."""
    prepared = decoder.prepare({"hidden": hidden})
    row, limit = decoder.begin(prepared, Options(**options)), options.get("max_tokens")
    limit = limit or default_tokens(decoder, prepared)
    while not row.ended and len(row.tokens) < limit:
        decoder.advance([row])
    decoder.drop([row])
    return row, limit


class _Extractor:
    """In the place of a feature extractor: it gives the piece of the sound itself."""

    sampling_rate = 16_000

    def __call__(self, piece: Any, **_how: Any) -> dict[str, Any]:
        return {"piece": piece}


@pytest.mark.parametrize("seconds", [0.01, 29.9, 30.0, 30.01, 45.0, 50.0, 50.01, 61.3, 70.0, 600.0])
@pytest.mark.parametrize("chunk", [30, 1])
def test_a_sound_is_cut_as_transformers_pipeline_cuts_it(seconds: float, chunk: int) -> None:
    windows = Windows(chunk)
    heard = np.arange(int(seconds * 16_000 * chunk / 30), dtype=np.float32)
    cut = chunk_iter(heard, _Extractor(), windows.samples, windows.shared, windows.shared)
    expected = list(cut)
    found = windows.cut(heard)
    assert [piece.tolist() for piece in found] == [one["piece"].tolist() for one in expected]
    tokens = [token for number in range(len(found)) for token in (0, number + 1)]
    told = [(ids, [round(n * 16_000) for n in stride[1:]]) for ids, stride in windows.strides(tokens, 0)]
    assert told == [([number + 1], list(one["stride"][1:])) for number, one in enumerate(expected)]


def test_a_sound_over_ten_minutes_is_a_bad_input(parts: list[Any]) -> None:
    with pytest.raises(BadInputError, match=r"601\.0 s of sound; at most 600 s"):
        parts[0].prepare({"audio": wav(np.zeros(601 * 1000, np.float32), 1000)})


def test_the_number_of_tokens_that_a_request_names_counts_for_the_whole_text(parts: list[Any]) -> None:
    hidden = run_module(parts[0], {"audio": sound(2, 3.1)}, "hidden")["hidden"]
    assert len(hidden) == 5
    row, _ = written(parts[1], hidden)
    assert row.ended
    assert len(row.written) + 1 == len(hidden)
    assert row.outputs["finished"] == "length"  # each window was cut at the module's own number
    assert all(len(window) <= LONGEST for window in row.written)
    short, _ = written(parts[1], hidden, max_tokens=14)
    assert not short.ended
    assert short.tokens == row.tokens[:14]


def test_long_sounds_and_short_ones_written_together_are_those_of_each_alone(parts: list[Any]) -> None:
    encoder, decoder = parts
    sounds = [sound(1), sound(2, 3.1), sound(3, 2.2), sound(4)]
    hidden = [run_module(encoder, {"audio": one}, "hidden")["hidden"] for one in sounds]
    alone = [written(decoder, one, timestamps=True)[0] for one in hidden]
    prepared = [decoder.prepare({"hidden": one}) for one in hidden]
    rows = [decoder.begin(one, Options(timestamps=True)) for one in prepared]
    limits = [default_tokens(decoder, one) for one in prepared]
    while running := [r for r, n in zip(rows, limits, strict=True) if not r.ended and len(r.tokens) < n]:
        decoder.advance(running)
        decoder.drop([r for r, n in zip(rows, limits, strict=True) if r.ended or len(r.tokens) >= n])
    assert [row.tokens for row in rows] == [row.tokens for row in alone]
    assert [row.outputs for row in rows] == [row.outputs for row in alone]
