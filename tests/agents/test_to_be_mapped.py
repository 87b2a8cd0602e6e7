"""Whether a module's weights are read into memory or mapped from the disk, and what is said where neither can be."""

from pathlib import Path

import pytest

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.registry.mapped import is_to_be_mapped, mapped_classes, why_not_mapped
from s2m3.agents.runtimes.network import NUMPY, ONNX, TORCH
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.errors import NoCapacityError

#: Weights of 1000 MB, counted with 100 where they are mapped, and a cache of 50.
SPEC = shipped_catalogue().modules["noop-head"].model_copy(update={"id": "m", "memory_mb": 1000.0, "cache_mb": 50.0})
WHY = "its weights cannot be mapped: because"


def spec(map_weights: str | None) -> ModuleSpec:
    return SPEC.model_copy(update={"map_weights": map_weights})


@pytest.mark.parametrize(
    ("asked", "free_mb", "why_not", "mapped"),
    [
        (None, 1050.0, None, False),
        ("if-needed", 1050.0, None, False),
        ("if-needed", 1049.0, None, True),
        ("if-needed", 150.0, None, True),
        ("always", 5000.0, None, True),
        ("always", 150.0, None, True),
        ("always", 1050.0, WHY, False),
    ],
)
def test_weights_are_mapped_where_it_is_asked_for_and_they_do_not_fit_or_are_not_to(
    asked: str | None, free_mb: float, why_not: str | None, *, mapped: bool
) -> None:
    assert is_to_be_mapped(spec(asked), "float32", free_mb, 2000.0, why_not) is mapped


@pytest.mark.parametrize(
    ("asked", "free_mb", "why_not", "said"),
    [
        (None, 1049.0, None, "m needs 1050 MB, 1049 of 2000 are free"),
        ("unknown", 1049.0, None, "m needs 1050 MB, 1049 of 2000 are free"),
        ("if-needed", 149.0, None, "m needs 1050 MB, 149 of 2000 are free; with mapped weights it needs 150 MB"),
        ("always", 149.0, None, "m needs 1050 MB, 149 of 2000 are free; with mapped weights it needs 150 MB"),
        ("always", 500.0, WHY, f"m needs 1050 MB, 500 of 2000 are free; {WHY}"),
    ],
)
def test_what_fits_neither_way_is_refused_with_the_figures_and_the_reason(
    asked: str | None, free_mb: float, why_not: str | None, said: str
) -> None:
    with pytest.raises(NoCapacityError) as refused:
        is_to_be_mapped(spec(asked), "float32", free_mb, 2000.0, why_not)
    assert refused.value.detail == said


@pytest.mark.parametrize(
    ("weights_mb", "dtype", "mapped_mb"),
    [(1000.0, "float32", 100.0), (1000.0, "float16", 50.0), (100.0, "float32", 32.0), (20.0, "float32", 20.0)],
)
def test_mapped_weights_count_a_tenth_and_at_least_32_mb_and_never_more_than_read_ones(
    weights_mb: float, dtype: str, mapped_mb: float
) -> None:
    one = SPEC.model_copy(update={"memory_mb": weights_mb})
    assert one.mapped_mb(dtype) == pytest.approx(mapped_mb)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runtime", "device", "cache", "dtype", "why"),
    [
        (ONNX, "cpu", False, "int8", None),
        (ONNX, "cuda:0", False, "float32", "they go to cuda:0"),
        (NUMPY, "cpu", True, "float32", "image-encoder makes them of its own files"),
        (TORCH, "cpu", False, "float32", "this agent has no cache of parts (parts_mb is 0)"),
        (TORCH, "cpu", True, "int8", "int8 is made of the file's numbers when they are read"),
        (TORCH, "cpu", True, "float32", None),  # that there is no such folder, loading says
    ],
)
def test_where_weights_cannot_be_mapped_it_is_said_why(
    runtime: str, device: str, dtype: str, why: str | None, tmp_path: Path, *, cache: bool
) -> None:
    one = SPEC.model_copy(update={"class_": "image-encoder", "source": "nowhere"})
    sources = CheckpointSources(cache=PartCache(tmp_path, 1) if cache else None)
    found = why_not_mapped(one, sources, runtime, Device(device), dtype)  # type: ignore[arg-type]
    assert found == (why and f"its weights cannot be mapped: {why}")


def test_classes_with_weights_of_their_own_files_are_not_mapped(tmp_path: Path) -> None:
    own = SPEC.model_copy(update={"class_": "ssd-detector"})
    found = why_not_mapped(own, CheckpointSources(cache=PartCache(tmp_path, 1)), TORCH, Device(), "float32")
    assert found == "its weights cannot be mapped: ssd-detector makes them of its own files"


def test_a_profile_names_the_classes_that_can_be_mapped_by_what_runs_them(tmp_path: Path) -> None:
    cache = PartCache(tmp_path, 1)
    torch = mapped_classes(CheckpointSources(runtimes=(TORCH,), cache=cache), Device())
    onnx = mapped_classes(CheckpointSources(runtimes=(ONNX,)), Device())
    assert {"image-encoder", "causal-lm"} <= set(torch)
    assert {"image-encoder", "sentence-encoder"} <= set(onnx)
    assert "causal-lm" not in onnx
    assert "similarity-head" not in torch  # some numbers, read by numpy
    assert "sentence-encoder" not in torch  # of a wheel
    assert mapped_classes(CheckpointSources(runtimes=(TORCH,)), Device()) == []
    assert mapped_classes(CheckpointSources(runtimes=(TORCH, ONNX), cache=cache), Device("cuda:0")) == []
