"""The device on which an agent's modules compute, its memory and speed, and networks that are put on it.

Outside a network everything is in the host's memory: tensors go to the device when they enter a network that lies
there, and come back when they leave it. So no module class has to know of devices.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from threading import local
from types import FunctionType, ModuleType
from typing import Any

from s2m3.agents.memory import recounted_rss_mb
from s2m3.agents.transfers import Transfers
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import NotInstalledError

__all__ = ["CPU", "Device", "is_out_of_memory", "open_device", "put_on"]

CPU = "cpu"
_MB = 1_000_000
#: Part of an accelerator's free memory that is the budget where no setting says it.
_PART = 0.9
#: Rows and columns of the matrices whose product is timed, and for how long, seconds.
_SIZE, _COMPUTE_S = 2048, 0.1
#: The dtypes whose speed is measured beside float32's.
_SMALLER: tuple[Dtype, ...] = ("bfloat16", "float16")
#: Pictures of one forward pass on an accelerator: as many as a batch may become (serving/batch_size.py).
_ROWS = 64
#: How deep below a network's root tensors may enter: some classes call a part of the network by itself.
_ENTRIES = 2
#: How many objects deep a module's networks are looked for.
_DEPTH = 6
#: Packages whose objects hold no networks that are a module's.
_PLAIN = frozenset({"builtins", "numpy", "torch", "tokenizers", "threading", "collections", "re", "PIL", "structlog"})
#: What a RuntimeError says that is about a device's full memory: Metal's allocator, CUDA itself, cuBLAS, cuDNN.
_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
#: Whether a call into a network is under way in a thread: inner calls leave what they give on the device.
_inside = local()


class Device:
    """Where modules compute.

    Args:
        name: `cpu`, `cuda:0`, `mps`, `xpu:1`.
    """

    def __init__(self, name: str = CPU) -> None:
        self.name = name

    @property
    def is_cpu(self) -> bool:
        """Whether it is the host's processor."""
        return self.name == CPU

    @property
    def pins(self) -> bool:
        """Whether the device copies from and to pinned memory of the host by itself."""
        return self.name.startswith("cuda")

    def taken_mb(self) -> float:
        """Returns what this process takes of the device's memory, 10^6 bytes; on the CPU, as recounted_rss_mb."""
        if self.is_cpu:
            return recounted_rss_mb()
        module = self._module()
        allocated = getattr(module, "memory_reserved", None) or getattr(module, "driver_allocated_memory", None)
        return float(allocated(*self._index())) / _MB if allocated is not None else 0.0

    def free_mb(self) -> float:
        """Returns what is free of an accelerator's memory, 10^6 bytes."""
        module = self._module()
        if hasattr(module, "mem_get_info"):
            return float(module.mem_get_info(*self._index())[0]) / _MB
        return float(module.recommended_max_memory()) / _MB - self.taken_mb()  # mps

    def default_budget_mb(self) -> float:
        """Returns the memory budget of an accelerator without a setting, 10^6 bytes."""
        return self.free_mb() * _PART

    def give_back(self) -> None:
        """Returns memory that the runtime keeps for later tensors."""
        if not self.is_cpu:
            self._module().empty_cache()

    def gflops(self) -> dict[Dtype, float]:
        """Returns the speed of a matrix product in each dtype that is faster than float32, and in that, GFLOP/s."""
        found: dict[Dtype, float] = {"float32": self._product_gflops("float32")}
        for dtype in _SMALLER:
            with suppress(RuntimeError, TypeError):  # the device has no such dtype, as an older Metal no bfloat16
                speed = self._product_gflops(dtype)
                if speed > found["float32"]:
                    found[dtype] = speed
        return found

    def _product_gflops(self, dtype: str) -> float:
        torch = import_module("torch")
        a = torch.ones((_SIZE, _SIZE), dtype=getattr(torch, dtype), device=self.name)
        a @ a
        self.wait()
        best, end = 0.0, time.perf_counter() + _COMPUTE_S
        while (began := time.perf_counter()) < end:
            a @ a
            self.wait()
            best = max(best, 2 * _SIZE**3 / (time.perf_counter() - began) / 1e9)
        return best

    def wait(self) -> None:
        """Waits until the device has computed what it was given."""
        if not self.is_cpu:
            self._module().synchronize(*self._index())

    def wait_for_copies(self) -> None:
        """Waits until what the calling thread has queued is done, its copies to the host among it."""
        self._module().current_stream(*self._index()).synchronize()

    def _module(self) -> Any:
        torch = import_module("torch")
        return torch.get_device_module(torch.device(self.name))

    def _index(self) -> tuple[int, ...]:
        _, _, number = self.name.partition(":")
        return (int(number),) if number else ()


def open_device(asked: str) -> Device:
    """Returns the device that a setting names; `auto` is the first accelerator, or the CPU where there is none.

    Raises:
        NotInstalledError: It is not there; the text says what is.
    """
    if asked == CPU:
        return Device()
    if find_spec("torch") is None:
        if asked == "auto":
            return Device()
        raise NotInstalledError(f"--device {asked}: torch is not installed, without which there is only cpu")
    there = _accelerators()
    if asked == "auto":
        return Device(there[0] if there else CPU)
    name = f"{asked}:0" if asked != "mps" and ":" not in asked else asked
    if name not in there:
        found = ", ".join(there) or "no accelerator"
        raise NotInstalledError(f"--device {asked} is not here: torch {_torch_version()} finds {found}")
    return Device(name)


def _torch_version() -> str:
    return str(import_module("torch").__version__)


def _accelerators() -> list[str]:
    """Returns the names of the accelerators that torch finds."""
    torch = import_module("torch")
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator().type
    return [kind] if kind == "mps" else [f"{kind}:{number}" for number in range(torch.accelerator.device_count())]


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that the device's memory is full.

    torch has a class for it, which Metal's allocator and the libraries of CUDA do not use.
    """
    if type(error).__name__ == "OutOfMemoryError":
        return type(error).__module__.partition(".")[0] == "torch"
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def put_on(module: Any, device: Device) -> None:
    """Puts the networks of a loaded module on a device, in place; nothing is done for the CPU.

    Raises:
        Exception: What torch raises, for example when the device's memory is full.
    """
    if device.is_cpu:
        return
    if hasattr(module, "rows_at_once"):
        module.rows_at_once = _ROWS
    nn: Any = import_module("torch").nn
    transfers = Transfers(device.name, pins=device.pins, wait=device.wait_for_copies)
    for found in list(_networks(module, nn.Module, set(), 0)):
        found.to(device.name)
        if isinstance(found, nn.Module):
            for part in _entries(found, nn):
                part.register_forward_pre_hook(partial(_enter, transfers), with_kwargs=True, prepend=True)
                part.register_forward_hook(partial(_leave, transfers), always_call=True)


def _networks(value: Any, kind: type, seen: set[int], depth: int) -> Iterator[Any]:
    """Yields the networks, and the pipelines of networks, that an object holds."""
    if id(value) in seen or depth > _DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, kind) or (hasattr(value, "components") and hasattr(value, "to")):
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        for inner in list(value.values() if isinstance(value, Mapping) else value):
            yield from _networks(inner, kind, seen, depth + 1)
    elif isinstance(value, partial):
        yield from _networks((value.func, value.args, value.keywords), kind, seen, depth)
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        yield from _networks(cells, kind, seen, depth + 1)
    elif hasattr(value, "__self__"):
        yield from _networks(value.__self__, kind, seen, depth)
    elif not isinstance(value, type | ModuleType) and type(value).__module__.partition(".")[0] not in _PLAIN:
        held = [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
        yield from _networks([*getattr(value, "__dict__", {}).values(), *held], kind, seen, depth + 1)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # the function was made before its variable
        return False


def _entries(network: Any, nn: Any) -> Iterator[Any]:
    """Yields the parts of a network at which tensors may enter: those near its root, and its embeddings."""
    for name, part in network.named_modules():
        near = not name or name.count(".") < _ENTRIES
        if (near or isinstance(part, nn.Embedding)) and not isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield part


def _enter(transfers: Transfers, _network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    _inside.calls = getattr(_inside, "calls", 0) + 1
    return transfers.to_device(args), transfers.to_device(kwargs)


def _leave(transfers: Transfers, _network: Any, _args: Any, found: Any) -> Any:
    _inside.calls -= 1
    return found if _inside.calls else transfers.to_host(found)
