"""The language of a Whisper transcript is what transformers detects, or what was asked for, and the answer names it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers as t

from s2m3.agents.checkpoints.generation.text_generator import TextGenerator
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.generation import NO_OPTIONS
from tests.checkpoints import whole
from tests.checkpoints.inprocess import loaded, run_module
from tests.checkpoints.tiny import BOS, EOS, PAD, SIZE, save, tokenizer

LANGUAGES = {f"<|{code}|>": SIZE + n for n, code in enumerate(("de", "en", "es", "fr", "it", "ja"))}
TRANSCRIBE, TRANSLATE, SILENT = SIZE + 6, SIZE + 7, SIZE + 8
TOKENS = [*LANGUAGES, "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
MULTILINGUAL = {
    "is_multilingual": True,
    "lang_to_id": LANGUAGES,
    "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSLATE},
    "no_timestamps_token_id": SILENT,
    "suppress_tokens": [*LANGUAGES.values(), TRANSCRIBE, TRANSLATE, SILENT],
    "begin_suppress_tokens": [EOS],
    "max_length": 40,
}
ENGLISH = {"no_timestamps_token_id": SILENT, "forced_decoder_ids": [[1, SILENT]], "is_multilingual": False}
#: Kinds of generation_config.json -> what differs in it.
KINDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "as-published": {"forced_decoder_ids": [[1, None], [2, TRANSCRIBE]]},
    "forced": {"forced_decoder_ids": [[1, LANGUAGES["<|es|>"]], [2, TRANSLATE]]},
    "named": {"language": "german"},
    "translates": {"task": "translate"},
}


def make(folder: Path, generation: dict[str, Any]) -> Path:
    sizes = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    config = t.WhisperConfig(
        vocab_size=SIZE + len(TOKENS), d_model=32, encoder_layers=2, decoder_layers=2, num_mel_bins=16, **sizes,
        max_source_positions=50, max_target_positions=40, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        decoder_start_token_id=BOS,
    )  # fmt: skip
    network = t.WhisperForConditionalGeneration(config)
    network.generation_config = t.GenerationConfig(
        decoder_start_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, **generation
    )
    save(network, folder, seed=23, writer=0.8)
    with torch.no_grad():
        for name, weight in network.named_parameters():  # what is heard counts more than what was written
            if name.endswith(("encoder_attn.out_proj.weight", "encoder.conv1.weight")):
                weight.mul_(4 if "conv1" in name else 3)
    network.save_pretrained(folder)
    tokenizer(folder)
    words = t.AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"additional_special_tokens": TOKENS})
    assert words.convert_tokens_to_ids("<|notimestamps|>") == SILENT
    words.save_pretrained(folder)
    t.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whispers")
    for kind, generation in KINDS.items():
        make(root / kind, MULTILINGUAL | generation)
    make(root / "english", ENGLISH)
    return root


def sounds() -> list[bytes]:
    """Eight tones and noises of half a second, as WAV files."""
    found = []
    for n in range(8):
        random, seconds = np.random.default_rng(n), np.arange(8000) / 16_000
        tone = np.sin(2 * np.pi * 80 * 2**n * seconds) * (n % 3) + random.normal(0, 0.05 * n, 8000)
        file = io.BytesIO()
        soundfile.write(file, (0.3 * tone).astype(np.float32), 16_000, format="WAV", subtype="FLOAT")
        found.append(file.getvalue())
    return found


SOUNDS = sounds()


def modules(root: Path, kind: str) -> list[ModuleSpec]:
    definition = definition_of(read_checkpoint(root / kind), kind)
    assert definition.model.answer == ["text", "language", "segments", "finished"]
    return definition.modules


def written(root: Path, kind: str, **config: Any) -> list[dict[str, Any]]:
    """What the two parts make of each sound."""
    encoder, decoder = modules(root, kind)
    hears = loaded(root, encoder)
    writes = loaded(root, decoder.model_copy(update={"config": {"max_new_tokens": 12, **config}}))
    hidden = [run_module(hears, {"audio": sound}, "hidden")["hidden"] for sound in SOUNDS]
    return [run_module(writes, {"hidden": one}, "text", "language") for one in hidden]


def generated(folder: Path, **how: Any) -> list[dict[str, Any]]:
    """What the whole of transformers makes of each sound; `language` is that of its prompt."""
    network, found = whole.network(folder), []
    for sound in SOUNDS:
        features = whole.sound(folder, sound).input_features
        ids = network.generate(features, max_new_tokens=12, num_beams=1, do_sample=False, **how)[0]
        found.append({"text": whole.said(folder, ids)})
    return found


def detected(folder: Path) -> list[str]:
    network = whole.network(folder)
    codes = {token: code.strip("<|>") for code, token in LANGUAGES.items()}
    features = (whole.sound(folder, sound).input_features for sound in SOUNDS)
    return [codes[int(network.detect_language(one)[0])] for one in features]


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [one["text"] for one in found]


@pytest.mark.parametrize("kind", ["nothing", "as-published", "translates"])
def test_the_language_of_each_sound_is_what_transformers_detects(checkpoints: Path, kind: str) -> None:
    found, expected = written(checkpoints, kind), detected(checkpoints / kind)
    assert [one["language"] for one in found] == expected
    assert len(set(expected)) > 2
    assert texts(found) == texts(generated(checkpoints / kind))


@pytest.mark.parametrize(("kind", "language"), [("forced", "es"), ("named", "de")])
def test_a_language_that_generation_config_names_is_followed(checkpoints: Path, kind: str, language: str) -> None:
    found = written(checkpoints, kind)
    assert {one["language"] for one in found} == {language}
    assert texts(found) == texts(generated(checkpoints / kind))


@pytest.mark.parametrize("asked", ["ja", "japanese", "<|ja|>"])
def test_a_language_that_is_asked_for_is_written_whatever_is_heard(checkpoints: Path, asked: str) -> None:
    found = written(checkpoints, "as-published", language=asked)
    assert {one["language"] for one in found} == {"ja"}
    assert texts(found) == texts(generated(checkpoints / "as-published", language="ja"))
    assert texts(found) != texts(written(checkpoints, "as-published", language="en"))


def test_an_english_only_checkpoint_has_neither_language_nor_task(checkpoints: Path) -> None:
    found = written(checkpoints, "english")
    assert {one["language"] for one in found} == {""}
    assert texts(found) == texts(generated(checkpoints / "english"))


def test_a_language_that_the_checkpoint_lacks_is_refused_by_name(checkpoints: Path) -> None:
    decoder = modules(checkpoints, "nothing")[1]
    with pytest.raises(ModuleFailedError, match=r"config\.language: 'nl' is not one it knows: de, en, es, fr, it, ja"):
        loaded(checkpoints, decoder.model_copy(update={"config": {"language": "nl"}}))
    decoder = modules(checkpoints, "english")[1]
    with pytest.raises(ModuleFailedError, match="'en': this checkpoint is English-only"):
        loaded(checkpoints, decoder.model_copy(update={"config": {"language": "en"}}))


def test_transcripts_in_several_languages_written_together_are_those_of_each_alone(checkpoints: Path) -> None:
    encoder, decoder = modules(checkpoints, "as-published")
    hears, writes = loaded(checkpoints, encoder), loaded(checkpoints, decoder)
    assert isinstance(writes, TextGenerator)
    prepared = [writes.prepare(run_module(hears, {"audio": sound}, "hidden")) for sound in SOUNDS]
    alone = [writes.run([one], frozenset({"text", "language"}))[0] for one in prepared]
    rows = []
    for one in prepared:  # each begins a step later than the one before
        rows.append(writes.begin(one, NO_OPTIONS))
        writes.advance([row for row in rows if not row.ended])
    while going := [row for row in rows if not row.ended and len(row.tokens) < 30]:
        writes.drop([row for row in rows if row not in going])
        writes.advance(going)
    assert torch.is_inference_mode_enabled() is False
    assert [row.outputs["language"] for row in rows] == [found["language"] for found in alone]
    for row, found in zip(rows, alone, strict=True):
        assert str(found["text"]).startswith(writes.text(row.tokens[:30]))
