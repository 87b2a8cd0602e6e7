"""Loading holds no tensor twice: the peak of a process, beside its runtime, is what the part takes."""

import sys
from pathlib import Path

import pytest
import torch

from s2m3.schemas.checkpoints.headers import read_checkpoint
from tests.checkpoints.large import make_large, peak_of

#: Of the part's own bytes.
_MOST = 1.2


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The peak of a process that loads the same part of negligible size."""
    folder = tmp_path_factory.mktemp("floor") / "small"
    make_large(folder, 32, 1, torch.bfloat16)
    return peak_of(folder, "decoder", "int8")[0]


def ratio(folder: Path, dtype: str, floor: int) -> float:
    """The peak beside the process's runtime, in parts of what the part holds."""
    peak, held = peak_of(folder, "decoder", dtype)
    sys.stdout.write(f"{held / 1e6:.0f} MB in {dtype}: peak {(peak - floor) / held:.3f} x beside the runtime\n")
    return (peak - floor) / held


# 1,024 wide: 13.6 M numbers a layer, 27 MB in bfloat16.
@pytest.mark.parametrize(
    ("stored", "shards", "dtype", "most"),
    [
        pytest.param(torch.bfloat16, 1, "bfloat16", _MOST, marks=pytest.mark.long),
        (torch.float32, 3, "bfloat16", _MOST),
        (torch.bfloat16, 2, "int8", 1.6),  # and a few matrices in float32
    ],
)
def test_a_part_is_never_there_twice(
    tmp_path: Path, floor: int, stored: torch.dtype, shards: int, dtype: str, most: float
) -> None:
    make_large(tmp_path / "large", 1_024, 12, stored, shards=shards)
    assert ratio(tmp_path / "large", dtype, floor) < most


@pytest.mark.long
def test_3_a_part_of_two_thousand_million_parameters_peaks_at_its_own_bytes(tmp_path: Path, floor: int) -> None:
    make_large(tmp_path / "large", 4_096, 9, torch.bfloat16, shards=2)
    numbers = sum(info.count for info in read_checkpoint(tmp_path / "large").tensors.values())
    assert numbers > 1.9e9
    assert ratio(tmp_path / "large", "bfloat16", floor) < _MOST
