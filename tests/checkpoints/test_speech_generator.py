"""Speech from text: the seed of a request alone decides the noise, and what cannot be spoken is refused in words."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import transformers as t

from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.servable import why_not_servable
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.specs import ModuleSpec
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.plain import encode_plain_value, plain_value
from tests.checkpoints.inprocess import loaded
from tests.families.family import definition
from tests.families.speech import SPEECH

TEXT = "the door is open"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("voices") / "vits"
    made.mkdir()
    next(family for family in SPEECH if family.name == "vits").make(made)
    return made


def spec_of(folder: Path, **config: Any) -> ModuleSpec:
    return definition(folder).modules[0].model_copy(update={"config": config})


def spoken(module: Any, seed: int, text: str = TEXT) -> bytes:
    found: bytes = module.run([module.prepare_with({"text": text}, Options(seed=seed))], frozenset({"audio"}))[0][
        "audio"
    ]
    return found


def test_the_seed_decides_and_nothing_else(folder: Path) -> None:
    module: Any = loaded(folder.parent, spec_of(folder))
    first = spoken(module, 5)
    assert spoken(module, 6) != first
    torch.rand(7)
    assert spoken(module, 5) == first


def test_torchs_own_row_of_random_numbers_goes_on_undisturbed(folder: Path) -> None:
    module: Any = loaded(folder.parent, spec_of(folder))
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    found = [float(torch.rand(1))]
    spoken(module, 5)
    assert [*found, float(torch.rand(1))] == expected


def test_it_speaks_with_the_voice_that_is_configured(folder: Path) -> None:
    module: Any = loaded(folder.parent, spec_of(folder, speaker_id=2))
    network, words = t.VitsModel.from_pretrained(folder), t.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        torch.manual_seed(5)
        expected = network(words(TEXT, return_tensors="pt")["input_ids"], speaker_id=2).waveform[0].numpy()
    samples, rate = soundfile.read(io.BytesIO(spoken(module, 5)), dtype="float32")
    assert rate == network.config.sampling_rate
    assert samples == pytest.approx(expected, abs=2e-4 / 3)


def test_a_voice_that_there_is_not_is_named(folder: Path) -> None:
    with pytest.raises(ModuleFailedError, match="speaker_id: 3: it has 3"):
        loaded(folder.parent, spec_of(folder, speaker_id=3))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no character"), ("你好 123", "no character"), ("a" * 2001, "2001 characters; at most 2000")],
)
def test_a_text_that_cannot_be_spoken_is_a_bad_input(folder: Path, text: str, said: str) -> None:
    module: Any = loaded(folder.parent, spec_of(folder))
    with pytest.raises(BadInputError, match=said):
        module.prepare({"text": text})


@pytest.mark.parametrize("key", ["phonemize", "is_uroman"])
def test_what_needs_another_program_is_refused_with_the_task(folder: Path, tmp_path: Path, key: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {key: True}))
    checkpoint = read_checkpoint(copy)
    assert key in str(why_not_servable(checkpoint, architecture_of(checkpoint.config)))


def test_a_file_goes_out_whole_alone_and_as_base64_in_json() -> None:
    assert encode_plain_value(b"RIFF\0") == b"RIFF\0"
    assert plain_value(b"RIFF\0") == {"base64": "UklGRgA="}
