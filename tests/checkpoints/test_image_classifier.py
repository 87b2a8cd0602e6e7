"""Which image classifiers are split and which stay whole, and pictures that a whole one cannot take."""

from pathlib import Path

import pytest
import torch
import transformers as t
from PIL import Image
from torch import nn
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.processors import NO_PILLOW, OVER_TORCH
from s2m3.schemas.checkpoints.servable import UNSERVED
from s2m3.schemas.errors import BadInputError
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.family import Family, definition
from tests.families.image_classification import IMAGE_CLASSIFICATION
from tests.families.vision_language import VISION_LANGUAGE
from tests.media.files import file_of


def _served() -> list[str]:
    """The image classifiers of transformers, without those that are refused: timm's own are by their model_type."""
    found = []
    for kind, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
        processor = (IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {}).get("torchvision")
        if kind != "timm_wrapper" and processor not in NO_PILLOW - OVER_TORCH:
            found += [names] if isinstance(names, str) else list(names)
    return [name for name in found if name not in UNSERVED]


@pytest.mark.parametrize("name", _served())
def test_a_classifier_is_split_before_one_linear_layer_or_stays_whole(name: str) -> None:
    parts = architecture_of({"architectures": [name]}).parts
    if set(parts) == {"head"}:
        return
    kind = getattr(t, name)
    with torch.device("meta"):
        network = kind(kind.config_class())
    layers = [type(layer) for layer in network.classifier.modules() if list(layer.parameters(recurse=False))]
    assert layers == [nn.Linear]


def test_a_picture_that_is_a_line_is_an_answer_or_refused_in_words(tmp_path: Path) -> None:
    (row,) = (row for row in IMAGE_CLASSIFICATION if row.name == "levit")
    (tmp_path / row.name).mkdir()
    row.make(tmp_path / row.name)
    (spec,) = definition(tmp_path / row.name).modules
    module = loaded(tmp_path, spec)
    for size in ((1, 1), (1, 3000), (200, 1)):
        try:
            answer = run_module(module, {"image": file_of(Image.new("RGB", size, "red"), "PNG")}, "label", "score")
        except BadInputError as error:
            assert "picture" in error.detail  # noqa: PT017  # either is right
        else:
            assert answer["label"] in ("cat", "dog", "cup")


@pytest.mark.parametrize("row", [*IMAGE_CLASSIFICATION, *VISION_LANGUAGE[:1]], ids=lambda row: row.name)
def test_a_line_is_refused_before_a_processor_makes_gigabytes_of_it(tmp_path: Path, row: Family) -> None:
    (tmp_path / row.name).mkdir()
    row.make(tmp_path / row.name)
    spec = next(spec for spec in definition(tmp_path / row.name).modules if "image" in spec.inputs)
    module = loaded(tmp_path, spec)
    with pytest.raises(BadInputError, match="is a line, and cannot be prepared"):
        module.prepare({"image": file_of(Image.new("RGB", (30_000, 10), "red"), "PNG")})
