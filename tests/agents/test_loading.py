"""Loading modules within a budget, one at a time, with the reason where one cannot be: modules without weights."""

from collections.abc import Iterator
from queue import Queue

import pytest

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device
from s2m3.agents.loading import Loaded, Loader
from s2m3.agents.memory import rss_mb
from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.restart_policy import Mark
from s2m3.agents.supervision.watchdog import LOADING, Watchdog
from s2m3.agents.zoo.noop import NoopHead
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.errors import S2M3Error
from tests.conftest import WAIT_S

#: What a process that does nothing takes more or less from one look to the next, 10^6 bytes.
_NOISE_MB = 10.0
HEAD = shipped_catalogue().modules["noop-head"]


class Bench:
    """A loader, and what came of each load."""

    def __init__(self, spare_mb: float, device: Device | None = None) -> None:
        self.box = Blackbox()
        self.marks: Queue[list[Mark]] = Queue()
        self.outcomes: Queue[tuple[ModuleSpec, Loaded | S2M3Error]] = Queue()
        self.loader = Loader(
            "a",
            rss_mb() + spare_mb,
            1,
            CheckpointSources(),
            lambda spec, outcome: self.outcomes.put((spec, outcome)),
            watchdog=Watchdog(self.box),
            device=device,
        )

    def load(self, spec: ModuleSpec) -> Loaded | S2M3Error:
        self.loader.load(spec)
        return self.outcomes.get(timeout=WAIT_S)[1]

    def loaded(self, spec: ModuleSpec) -> Loaded:
        outcome = self.load(spec)
        assert isinstance(outcome, Loaded)
        return outcome

    def error(self, spec: ModuleSpec) -> S2M3Error:
        outcome = self.load(spec)
        assert isinstance(outcome, S2M3Error)
        return outcome


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A budget with room for light modules and none for torch."""
    made = Bench(spare_mb=200.0)
    made.loader.start()
    yield made
    made.loader.stop()


def spec(name: str = "m", **changes: object) -> ModuleSpec:
    return HEAD.model_copy(update={"id": name, **changes})


def test_a_loaded_module_comes_with_what_it_takes(bench: Bench) -> None:
    outcome = bench.loaded(spec(cache_mb=50.0))
    assert isinstance(outcome.module, NoopHead)
    assert outcome.spec.id == "m"
    assert outcome.memory_mb >= 50.0
    assert outcome.fingerprint == ""


def test_loads_are_done_in_the_order_they_were_asked_for(bench: Bench) -> None:
    for n in range(5):
        bench.loader.load(spec(f"m{n}"))
    assert [bench.outcomes.get(timeout=WAIT_S)[0].id for _ in range(5)] == ["m0", "m1", "m2", "m3", "m4"]


def test_what_is_held_is_taken_off_the_budget_until_it_is_forgotten(bench: Bench) -> None:
    bench.loaded(spec("first"))  # what the process needs for any module is counted once
    before = bench.loader.free_mb
    took = bench.loaded(spec(cache_mb=50.0)).memory_mb
    assert bench.loader.free_mb == pytest.approx(before - took, abs=_NOISE_MB)
    bench.loader.forget("m")
    assert bench.loader.free_mb == pytest.approx(before, abs=_NOISE_MB)
    bench.loader.forget("m")
    bench.loader.trim()
    assert bench.loader.free_mb == pytest.approx(before, abs=_NOISE_MB)


def test_a_module_that_does_not_fit_is_refused_with_the_figures_and_holds_nothing(bench: Bench) -> None:
    bench.loaded(spec("first"))
    before = bench.loader.free_mb
    error = bench.error(spec(cache_mb=10_000.0))
    assert (error.code, error.node) == ("no_capacity", "a")
    assert error.detail.startswith("m needs 10000 MB, ")
    assert bench.loader.free_mb == pytest.approx(before, abs=_NOISE_MB)


def test_a_module_that_fits_exactly_is_loaded_and_the_next_is_not(bench: Bench) -> None:
    bench.loaded(spec("first"))
    bench.loaded(spec("large", cache_mb=bench.loader.free_mb - 10.0))
    assert bench.error(spec("small", cache_mb=20.0)).code == "no_capacity"


class _Accelerator(Device):
    def __init__(self) -> None:
        super().__init__("cuda:0")

    def taken_mb(self) -> float:
        return 0.0

    def give_back(self) -> None:
        """Nothing is kept."""


def test_weights_for_an_accelerator_that_the_host_has_no_room_for_on_their_way_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Bench(spare_mb=80_000.0, device=_Accelerator())
    made.loader.start()
    monkeypatch.setattr("s2m3.agents.loading.available_mb", lambda: 500.0)
    error = made.error(spec(memory_mb=501.0))
    assert (error.code, error.detail) == (
        "no_capacity",
        "m goes through 501 MB of the host's memory; 500 are free",
    )
    made.loaded(spec(memory_mb=499.0))
    made.loader.stop()


def test_an_unknown_class_is_a_failed_module(bench: Bench) -> None:
    error = bench.error(spec(class_="nonsense"))
    assert (error.code, error.node) == ("module_failed", "a")
    assert "nonsense" in error.detail


def test_what_a_builder_raises_is_a_failed_module_with_its_name_and_at_most_300_characters(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("x" * 400)

    monkeypatch.setattr("s2m3.agents.zoo.noop.load_head", broken)
    error = bench.error(spec())
    assert error.code == "module_failed"
    assert error.detail.startswith("ZeroDivisionError: xxx")
    assert len(error.detail) == 300
    monkeypatch.undo()
    bench.loaded(spec())  # the loader goes on


def test_a_load_is_marked_in_the_blackbox_while_it_lasts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> NoopHead:
        bench.marks.put(bench.box.marks())
        return NoopHead()

    monkeypatch.setattr("s2m3.agents.zoo.noop.load_head", look)
    bench.loaded(spec())
    assert bench.marks.get(timeout=WAIT_S) == [Mark(LOADING, "m", ())]
    bench.load(spec("later"))
    assert bench.marks.get(timeout=WAIT_S) == [Mark(LOADING, "later", ())]
    assert bench.box.marks() in ([], [Mark(LOADING, "later", ())])


def test_a_budget_without_room_for_torch_expects_none_and_one_with_room_counts_it_in_advance() -> None:
    small, large = Bench(spare_mb=349.0), Bench(spare_mb=1_000.0)
    assert not small.loader.has_room_for_torch
    assert large.loader.has_room_for_torch
    assert large.loader.runtime_mb - small.loader.runtime_mb > 300.0


def test_a_budget_smaller_than_the_process_leaves_nothing_free() -> None:
    assert Bench(spare_mb=-10.0).loader.free_mb == 0.0


def test_nothing_is_loaded_after_a_stop() -> None:
    made = Bench(spare_mb=200.0)
    made.loader.start()
    made.loader.stop()
    made.loader.load(spec())
    made.loader._thread.join(WAIT_S)  # noqa: SLF001  # that it has ended is the point
    assert made.outcomes.empty()
