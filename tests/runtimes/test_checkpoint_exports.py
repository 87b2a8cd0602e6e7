"""Parts of checkpoints without torch: exported once, they answer as torch does; what cannot be exported says why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as t
from PIL import Image

from s2m3.agents import registry
from s2m3.agents.checkpoints.exported.export_pictures import steps_of
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.parts.exporting import export_checkpoint_part
from s2m3.agents.registry.classes import OF_CHECKPOINTS
from s2m3.agents.registry.exported import EXPORTABLE
from s2m3.agents.runtimes.exported import ExportedParts
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.parts import part_key
from s2m3.schemas.wire.values import Value
from tests.families.conftest import checkpoint
from tests.families.family import Family, definition
from tests.families.table import FAMILIES
from tests.zoo.samples import sample

#: Those whose ways differ most: two towers, texts that are padded, sound, logits, boxes.
_SHOWN = ("clip", "siglip2", "wav2vec2-ctc", "text-classifier", "detr")
_ROWS = [pytest.param(row, id=row.name, marks=() if row.name in _SHOWN else (pytest.mark.long,)) for row in FAMILIES]
#: A request's inputs by kind, none of which the check of an export used.
INPUTS: dict[str, Value] = {
    "image": sample("astronaut.jpg"),
    "images": [sample("astronaut.jpg"), sample("gravel.jpg")],
    "text": "two dogs on a blue mat, yes",
    "texts": ["two dogs on a blue mat", "no", "what is this, and who sits there on the red mat? a cat " * 9, "a cat"],
    "audio": sample("weather-today.flac"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture
def cache(tmp_path: Path) -> PartCache:
    return PartCache(tmp_path / "exports", 1 << 30)


def parts_of(row: Family, folder: Path) -> list[ModuleSpec]:
    """Returns a family's modules that may be exported."""
    modules = definition(checkpoint(folder, row), row.options).modules
    return [spec for spec in modules if spec.class_ in EXPORTABLE and spec.class_ in OF_CHECKPOINTS]


def answers(spec: ModuleSpec, sources: CheckpointSources) -> Mapping[str, Value]:
    module = registry.load(spec, sources)
    inputs = {name: INPUTS[kind] for name, kind in spec.inputs.items()}
    wanted = frozenset({"embedding", "features", "logits", "label", "score", "text"} & spec.outputs.keys())
    items = [module.prepare(inputs) for _ in range(min(2, module.max_batch))]
    return module.run(items, wanted)[-1]


@pytest.mark.parametrize("row", _ROWS)
def test_an_exported_part_answers_as_torch_does(row: Family, folder: Path, cache: PartCache) -> None:
    sources, why = CheckpointSources((folder,), runtimes=(TORCH,)), []
    for spec in parts_of(row, folder):
        try:
            digest = export_checkpoint_part(spec, sources, cache)
        except ModuleFailedError as error:
            why.append(str(error.detail))
            continue
        assert digest == export_checkpoint_part(spec, sources, cache), "it is exported once"
        light = CheckpointSources(runtimes=(ONNX,), exports=ExportedParts((cache,)))
        assert registry.identify(spec, light) == fingerprint(open_part(spec, sources))
        assert registry.runtime_of(spec, light) == ONNX
        found, wanted = answers(spec, light), answers(spec, sources)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, np.ndarray):
                assert np.abs(found[name] - value).max() <= 1e-5 * max(1.0, float(np.abs(value).max())), name
            else:
                assert found[name] == (pytest.approx(value, abs=1e-5) if name == "score" else value), name
    assert all(why), "a refusal has a reason"
    assert not why or row.name not in _SHOWN, why


def test_another_configuration_or_dtype_is_another_export(folder: Path) -> None:
    spec = parts_of(next(row for row in FAMILIES if row.name == "clip"), folder)[0]
    others = [spec.model_copy(update=update) for update in ({"config": {"a": 1}}, {"dtype": "int8"})]
    assert len({part_key(one, ONNX) for one in (spec, *others)} | {part_key(spec)}) == 4
    assert part_key(spec, ONNX) == part_key(spec, ONNX, "float32") == part_key(spec.model_copy(), ONNX)


_SQUARE = {"height": 24, "width": 40}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 30}, "crop_size": _SQUARE}),
        ("CLIPImageProcessorPil", {"size": _SQUARE, "do_center_crop": False, "do_rescale": False}),
        ("ViTImageProcessorPil", {"size": _SQUARE}),
        ("SiglipImageProcessorPil", {"size": _SQUARE, "resample": 0, "do_normalize": False}),
        ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 31}, "crop_pct": 0.9}),
        ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}),
        ("DetrImageProcessorPil", {"size": {"shortest_edge": 40, "longest_edge": 60}}),
        ("BlipImageProcessorPil", {"size": _SQUARE, "image_mean": 0.5, "image_std": 0.25}),
    ],
)
def test_pixels_without_transformers_are_equal_bit_for_bit(kind: str, settings: dict[str, Any]) -> None:
    processor = getattr(t, kind)(**settings)
    steps = steps_of(processor)
    noise = np.random.default_rng(0)
    for shape in ((24, 40), (23, 41), (200, 13), (7, 7), (301, 300)):
        picture = Image.fromarray(noise.integers(0, 256, (*shape, 3), np.uint8))
        wanted = processor(picture, return_tensors="np")["pixel_values"]
        found = steps([picture])
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted), shape


def test_processors_that_do_more_are_refused() -> None:
    with pytest.raises(ModuleFailedError, match="DonutImageProcessorPil, does more"):
        steps_of(t.DonutImageProcessorPil())


def test_a_picture_of_which_nothing_is_left_is_a_bad_input() -> None:
    steps = steps_of(t.CLIPImageProcessorPil(size={"shortest_edge": 30}, do_center_crop=True))
    with pytest.raises(BadInputError, match="cannot be prepared"):
        steps([Image.new("RGB", (0, 4))])
