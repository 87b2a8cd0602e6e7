"""Networks that read sound to its end in one pass: recognition with a CTC head, and classes of sound."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.servable import why_not_servable
from s2m3.schemas.errors import BadInputError
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.family import definition
from tests.families.speech import SPEECH, sound

ROWS = {family.name: family for family in SPEECH}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("sounds")

    def make(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            ROWS[name].make(folder)
        return folder

    return make


@pytest.mark.parametrize("name", sorted(set(MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.values())))
def test_every_audio_classifier_of_transformers_is_one_here(name: str) -> None:
    family = architecture_of({"architectures": [name]})
    assert [part.class_ for part in family.parts.values()] == ["audio-classifier"]


def test_a_text_classifier_stays_one() -> None:
    family = architecture_of({"architectures": ["BertForSequenceClassification"]})
    assert [part.class_ for part in family.parts.values()] == ["text-classifier"]


@pytest.mark.parametrize("name", ["wav2vec2-ctc", "wav2vec2-classification", "ast"])
def test_a_sound_too_short_for_the_network_is_a_bad_input(made: Callable[[str], Path], name: str) -> None:
    folder = made(name)
    module = loaded(folder.parent, definition(folder).modules[0])
    with pytest.raises(BadInputError, match="too short for this network"):
        module.prepare({"audio": sound(1, 100 / 16_000)})


def test_weights_under_the_older_names_of_weight_norm_are_read(made: Callable[[str], Path], tmp_path: Path) -> None:
    """Published wav2vec 2.0 checkpoints hold `weight_g` and `weight_v`."""
    folder = made("wav2vec2-ctc")
    copy = tmp_path / "older"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in older.items():
            name = name.replace(new, old)  # noqa: PLW2901
        renamed[name] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, copy / "model.safetensors", metadata={"format": "pt"})
    texts = [
        run_module(loaded(f.parent, definition(f).modules[0]), {"audio": sound(2)}, "text") for f in (folder, copy)
    ]
    assert texts[0] == texts[1]


def test_a_folder_that_names_no_extractor_has_that_of_its_model_type(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    """As the older published folders of wav2vec 2.0."""
    folder, copy = made("wav2vec2-ctc"), tmp_path / "unnamed"
    shutil.copytree(folder, copy)
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if not k.endswith("_type")}))
    texts = [
        run_module(loaded(f.parent, definition(f).modules[0]), {"audio": sound(2)}, "text") for f in (folder, copy)
    ]
    assert texts[0] == texts[1]


def test_a_recognizer_without_vocabulary_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = made("hubert-ctc")
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    checkpoint = read_checkpoint(tmp_path)
    assert "holds no tokenizer" in str(why_not_servable(checkpoint, architecture_of(checkpoint.config)))
