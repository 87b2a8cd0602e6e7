"""Tensors that several parts have in common are in a process's memory once, whatever else the parts hold."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.registry import identify
from s2m3.schemas.dtypes import Dtype
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import alter

_PATCHES = "vit.embeddings.patch_embeddings.projection.weight"


def network(folder: Path, name: str, dtype: Dtype = "float32") -> Any:
    """The vision part of a checkpoint as an agent loads it: its fingerprint first."""
    spec = next(spec for spec in definition(folder, name).modules if spec.prefix == "vision")
    spec, sources = spec.model_copy(update={"dtype": dtype}), CheckpointSources((folder,))
    identify(spec, sources)
    return build_network(open_part(spec, sources))


def places(network: Any) -> dict[str, int]:
    return {name: weight.data_ptr() for name, weight in network.named_parameters() if weight.nbytes >= 4_096}


@pytest.fixture
def pair(tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint, and a copy in which one tensor of the tower is another."""
    for name in ("one", "other"):
        shutil.copytree(tiny / "tiny-vit", tmp_path / name)
    alter(tmp_path / "other", _PATCHES)
    return tmp_path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_but_the_tensor_that_differs_is_held_once(pair: Path, dtype: Dtype) -> None:
    one, other = network(pair, "one", dtype), network(pair, "other", dtype)
    apart = {name for name, place in places(one).items() if places(other)[name] != place}
    assert apart == {_PATCHES}
    assert dtype == "bfloat16" or len(places(one)) > 10


def test_a_part_in_another_dtype_has_its_own(pair: Path) -> None:
    one, half = network(pair, "one"), network(pair, "one", "bfloat16")
    assert not set(places(one).values()) & set(places(half).values())
    assert next(half.parameters()).dtype == torch.bfloat16


def test_what_one_part_leaves_behind_stays_whole_for_the_other(pair: Path) -> None:
    one, other = network(pair, "one"), network(pair, "other")
    before = {name: weight.clone() for name, weight in other.named_parameters()}
    del one
    again = network(pair, "one")
    assert all(torch.equal(weight, before[name]) for name, weight in other.named_parameters())
    assert len(set(places(again).values()) & set(places(other).values())) == len(places(other)) - 1
