"""Parts whose weights are mapped: the same numbers, hardly any memory, and files that nobody can change or remove."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
import torch

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import map_raw
from s2m3.agents.checkpoints.storage.stored import StoredTensor
from s2m3.agents.loading import Loaded, Loader
from s2m3.agents.memory import rss_mb
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.registry.mapped import mapped_files
from s2m3.agents.runtimes.network import TORCH
from s2m3.agents.serving.module import Module
from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.schemas.checkpoints.headers import TensorInfo
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError, NoCapacityError, S2M3Error
from tests.conftest import WAIT_S
from tests.zoo.samples import sample

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "parts.py"))
#: Size of the part, and what the budget has for modules: torch's imports are counted with 350 MB at least.
_MB, _FREE_MB, _TORCH_MB = 120.0, 60.0, 350.0


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModuleSpec]:
    """A folder with a checkpoint of 120 MB, and the module of its encoder."""
    folder = tmp_path_factory.mktemp("shelf")
    spec: ModuleSpec = BENCH["checkpoint"](folder / "vit", _MB)
    return folder, spec.model_copy(update={"source": "vit"})


class Bench:
    """A loader with a budget, and what came of each load."""

    def __init__(self, sources: CheckpointSources, free_mb: float = _FREE_MB) -> None:
        self.outcomes: Queue[Loaded | S2M3Error] = Queue()
        self.loader = Loader(
            "a",
            rss_mb() + _TORCH_MB + free_mb,
            1,
            sources,
            lambda _, outcome: self.outcomes.put(outcome),
            watchdog=Watchdog(Blackbox()),
        )
        self.loader.start()

    def load(self, spec: ModuleSpec) -> Loaded | S2M3Error:
        self.loader.load(spec)
        return self.outcomes.get(timeout=WAIT_S)

    def loaded(self, spec: ModuleSpec) -> Loaded:
        outcome = self.load(spec)
        assert isinstance(outcome, Loaded), outcome
        return outcome

    def refused(self, spec: ModuleSpec) -> NoCapacityError:
        outcome = self.load(spec)
        assert isinstance(outcome, NoCapacityError), outcome
        return outcome


@pytest.fixture
def cache(tmp_path: Path) -> PartCache:
    return PartCache(tmp_path / "parts", 1_000_000_000)


@pytest.fixture
def bench(shelf: tuple[Path, ModuleSpec], cache: PartCache) -> Iterator[Bench]:
    made = Bench(CheckpointSources((shelf[0],), cache=cache, runtimes=(TORCH,)))
    yield made
    made.loader.stop()


def asking(spec: ModuleSpec, **changes: object) -> ModuleSpec:
    return spec.model_copy(update={"map_weights": "if-needed", **changes})


def private_mb() -> float:
    """Returns the memory that is this process's own, 10^6 bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Anonymous:"))


def run(module: Module) -> np.ndarray:
    (found,) = module.run([module.prepare({"image": sample("chelsea.jpg")})], frozenset({"features"}))
    features = found["features"]
    assert isinstance(features, np.ndarray)
    return features


def test_a_part_that_does_not_fit_is_refused_as_ever_unless_it_may_be_mapped(
    bench: Bench, shelf: tuple[Path, ModuleSpec]
) -> None:
    folder, spec = shelf
    whole = Bench(CheckpointSources((folder,), runtimes=(TORCH,)), 1000.0)
    read = whole.loaded(spec)
    assert not read.mapped
    wanted = run(read.module)
    del read
    whole.loader.stop()
    assert bench.refused(spec).detail.endswith("are free")
    before = private_mb()
    found = bench.loaded(asking(spec))
    assert found.mapped
    assert found.report().mapped
    assert found.module.nbytes > 0.9 * _MB * 1e6
    assert found.memory_mb < _MB / 2
    assert np.array_equal(run(found.module), wanted)
    assert private_mb() - before < _MB / 2


def test_pages_of_mapped_weights_are_not_counted_as_the_processs_memory(
    bench: Bench, shelf: tuple[Path, ModuleSpec]
) -> None:
    found = bench.loaded(asking(shelf[1]))
    before = rss_mb()
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    run(found.module)
    grown = (int(Path("/proc/self/statm").read_text().split()[1]) - resident) * 4096 / 1e6
    assert grown > _MB / 2  # all weights were used, so their pages are there
    assert rss_mb() - before < _MB / 2


def test_the_users_folder_may_be_changed_or_removed_under_a_mapped_module(cache: PartCache, tmp_path: Path) -> None:
    folder = tmp_path / "shelf" / "vit"
    spec: ModuleSpec = BENCH["checkpoint"](folder, _MB)
    bench = Bench(CheckpointSources((folder.parent,), cache=cache, runtimes=(TORCH,)))
    found = bench.loaded(asking(spec))
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    first = run(found.module)
    assert np.isfinite(first).all()
    (part,) = cache.parts()
    assert not cache.evict(part.manifest.digest)  # it is in use
    assert np.array_equal(run(found.module), first)
    del found
    bench.loader.forget(spec.id)
    bench.loader.trim()
    bench.loader.load(spec.model_copy(update={"class_": "nonsense"}))  # once it has failed, what came before is done
    bench.outcomes.get(timeout=WAIT_S)
    assert cache.evict(part.manifest.digest)
    bench.loader.stop()


def test_a_part_is_copied_into_the_cache_once_and_anew_when_the_folder_was_saved_anew(
    shelf: tuple[Path, ModuleSpec], cache: PartCache
) -> None:
    sources = CheckpointSources((shelf[0],), cache=cache, runtimes=(TORCH,))
    spec = asking(shelf[1])
    first = mapped_files(spec, sources, TORCH, "a" * 64)
    again = mapped_files(spec, sources, TORCH, "a" * 64)
    assert first.part.folder == again.part.folder
    assert (again.spec.source, again.spec.map_weights) == (str(first.part.folder), "always")
    assert len(cache.parts()) == 1
    # what lies in the cache already, as a part that came from another node does, is mapped where it is
    fetched = mapped_files(spec.model_copy(update={"source": str(first.part.folder)}), sources, TORCH, "a" * 64)
    assert fetched.part.folder == first.part.folder
    other = mapped_files(spec, sources, TORCH, "b" * 64)
    assert other.part.folder != first.part.folder
    for one in (first, again, fetched, other):
        one.part.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dtype": "float16"}, "the files hold float32, and this node has them in float16"),
        ({"dtype": "int8"}, "int8 is made of the file's numbers"),
    ],
)
def test_weights_that_are_wanted_in_another_dtype_than_the_files_are_refused_with_the_reason(
    bench: Bench, shelf: tuple[Path, ModuleSpec], changes: dict[str, object], why: str
) -> None:
    error = bench.refused(asking(shelf[1], memory_mb=10 * _MB, **changes))
    assert "its weights cannot be mapped" in error.detail
    assert why in error.detail


def test_a_cache_that_is_too_small_for_the_part_refuses_it(shelf: tuple[Path, ModuleSpec], tmp_path: Path) -> None:
    bench = Bench(CheckpointSources((shelf[0],), cache=PartCache(tmp_path, 1_000_000), runtimes=(TORCH,)))
    assert "the cache of parts holds 1 MB at most" in bench.refused(asking(shelf[1])).detail
    bench.loader.stop()


def test_a_module_whose_network_copies_its_weights_is_refused_after_all(
    bench: Bench, shelf: tuple[Path, ModuleSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2m3.agents.checkpoints.storage.stored._LEAST_MAPPED", 1 << 40)
    error = bench.refused(asking(shelf[1]))
    assert "beside its mapped weights" in error.detail
    monkeypatch.undo()
    assert bench.loaded(asking(shelf[1])).mapped


def _info(folder: Path, data: bytes, begin: int = 0, count: int = 20_000) -> TensorInfo:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return TensorInfo(path, "F32", (count,), begin)


@pytest.mark.parametrize(
    ("begin", "count", "dtype", "mapped"),
    [
        (0, 20_000, torch.float32, True),
        (8, 20_000, torch.float32, True),
        (0, 20_000, None, True),
        (2, 20_000, torch.float32, False),  # where no float32 may begin
        (0, 20_000, torch.float16, False),
        (0, 100, torch.float32, False),  # not worth a mapping
    ],
)
def test_a_tensor_is_mapped_as_it_lies_in_its_file_or_read(
    begin: int, count: int, dtype: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mapped: bool
) -> None:
    numbers = np.arange(20_000, dtype=np.float32)
    info = _info(tmp_path, bytes(begin) + numbers.tobytes(), begin, count)
    made: list[TensorInfo] = []

    def noted(tensor: TensorInfo) -> object:
        made.append(tensor)
        return map_raw(tensor)

    monkeypatch.setattr("s2m3.agents.checkpoints.storage.stored.map_raw", noted)
    found = StoredTensor(info, mapped=True)[...].to(dtype=dtype)
    assert torch.equal(found.float(), torch.from_numpy(numbers[:count]).to(dtype or torch.float32).float())
    assert bool(made) is mapped


def test_a_file_that_has_become_shorter_or_is_gone_is_a_failed_module(tmp_path: Path) -> None:
    info = _info(tmp_path, bytes(1_000))
    with pytest.raises(ModuleFailedError, match="cannot be mapped"):
        map_raw(info)
    info.file.unlink()
    with pytest.raises(ModuleFailedError, match="cannot be mapped"):
        map_raw(info)
