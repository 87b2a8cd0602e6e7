"""Modules on a device: the same answers as on the CPU, on a torch device that is the CPU under another name.

No GPU was seen by these tests: what they show is that each tensor is where the network that takes it is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from s2m3.agents import devices
from s2m3.agents.devices import Device, open_device, put_on
from s2m3.agents.resources import Resources
from s2m3.schemas.errors import NotInstalledError
from s2m3.schemas.settings import AgentSettings
from tests.checkpoints.tiny import make_all, make_clip, make_vit_gpt2, make_whisper
from tests.command import s2m3
from tests.conftest import WAIT_S

ROOT = Path(__file__).parents[2]


def run_on_fake(folder: Path, *models: str) -> dict[str, str]:
    words = [sys.executable, "-m", "tests.devices.run_on_fake", str(folder), *models]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=3 * WAIT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


MADE = {"tiny-clip": make_clip, "tiny-vit-gpt2": make_vit_gpt2, "tiny-whisper": make_whisper}


@pytest.fixture(scope="module")
def found_on_fake(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is wrong on the fake device: of one process, because starting it takes longest."""
    folder = tmp_path_factory.mktemp("fake")
    for name, make in MADE.items():
        make(folder / name)
    return run_on_fake(folder, *MADE)


def test_towers_and_generators_answer_on_a_device_as_on_the_cpu(found_on_fake: dict[str, str]) -> None:
    assert {name: found_on_fake[name] for name in MADE} == dict.fromkeys(MADE, "")


def test_results_are_waited_for_and_large_inputs_are_pinned_where_the_device_copies_by_itself(
    found_on_fake: dict[str, str],
) -> None:
    assert found_on_fake["copies"] == ""


def test_a_device_without_room_is_a_failed_load_and_a_smaller_batch_and_the_agent_goes_on(
    found_on_fake: dict[str, str],
) -> None:
    assert found_on_fake["full memory"] == ""


@pytest.mark.long
def test_every_tiny_checkpoint_answers_on_a_device_as_on_the_cpu(tmp_path: Path) -> None:
    found = run_on_fake(make_all(tmp_path))
    assert set(found.values()) == {""}, found


def test_a_device_that_is_asked_for_and_missing_is_an_error_that_says_what_is_there() -> None:
    with pytest.raises(NotInstalledError, match=r"--device cuda:3 is not here: torch .* finds no accelerator"):
        open_device("cuda:3")
    assert open_device("auto").is_cpu
    assert open_device("cpu").is_cpu


def test_of_several_accelerators_the_one_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_accelerators", lambda: ["cuda:0", "cuda:1"])
    assert [open_device(name).name for name in ("auto", "cuda", "cuda:1")] == ["cuda:0", "cuda:0", "cuda:1"]
    with pytest.raises(NotInstalledError, match="finds cuda:0, cuda:1"):
        open_device("xpu:0")


def test_an_agent_whose_device_is_missing_ends_at_once_with_one_line() -> None:
    done = s2m3("agent", "--host", "127.0.0.1", "--port", "1", "--node", "a", "--device", "cuda:0")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "not_installed: --device cuda:0 is not here" in done.stderr


class _Held:
    """A network behind what module classes put networks behind: an attribute, a list, a method, a closure."""

    def __init__(self) -> None:
        self.network = nn.Linear(2, 2)
        behind, other = nn.Linear(2, 2), nn.Linear(2, 2)
        self.parts = {"a": [(behind,)]}
        self.call = other.forward
        closed = nn.Linear(2, 2)
        self.closure = lambda x: closed(x) + 1
        self.all = [self.network, behind, other, closed]


def test_networks_are_found_wherever_a_module_holds_them() -> None:
    held = _Held()
    put_on(held, Device("meta"))
    assert {network.weight.device.type for network in held.all} == {"meta"}


def test_nothing_is_moved_and_hooked_on_the_cpu() -> None:
    held = _Held()
    put_on(held, Device())
    assert not any(network._forward_pre_hooks for network in held.all)  # noqa: SLF001


def test_weights_are_in_bfloat16_where_that_pays_and_no_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for speeds, chosen in (({"float32": 50.0, "bfloat16": 400.0}, "bfloat16"), ({"float32": 50.0}, "float32")):
        monkeypatch.setattr(Device, "gflops", lambda _, speeds=speeds: speeds)
        monkeypatch.setattr(Device, "default_budget_mb", lambda _: 70_000.0)
        monkeypatch.setattr("s2m3.agents.resources.open_device", lambda _: Device("cuda:0"))
        found = Resources.of(AgentSettings(node="a", device="cuda:0"))
        assert (found.dtype, found.memory_mb) == (chosen, 70_000.0)
        assert found.host_mb != found.memory_mb
        assert Resources.of(AgentSettings(node="a", device="cuda:0", dtype="float32")).dtype == "float32"


def test_the_speed_of_a_device_is_that_of_its_dtypes_that_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"float32": 10.0, "bfloat16": 5.0, "float16": 30.0}
    monkeypatch.setattr(Device, "_product_gflops", lambda _, dtype: speeds[dtype])
    assert Device("cuda:0").gflops() == {"float32": 10.0, "float16": 30.0}


def test_a_dtype_that_a_device_does_not_have_is_none_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(_: Device, dtype: str) -> float:
        if dtype == "bfloat16":
            raise TypeError("BFloat16 is not supported on MPS")
        return {"float32": 10.0, "float16": 30.0}[dtype]

    monkeypatch.setattr(Device, "_product_gflops", product)
    assert Device("mps").gflops() == {"float32": 10.0, "float16": 30.0}


def test_a_devices_full_memory_is_told_as_a_lack_of_capacity() -> None:
    assert devices.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert devices.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"))
    assert devices.is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    assert not devices.is_out_of_memory(RuntimeError("another"))
    assert not devices.is_out_of_memory(ValueError("out of memory"))


def test_only_known_devices_are_settings() -> None:
    for name in ("tpu", "cuda:x", "cpu:0", os.devnull):
        with pytest.raises(ValueError, match="device"):
            AgentSettings(node="a", device=name)
