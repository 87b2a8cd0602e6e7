"""Tensors between the host's memory and a device's: copies that the device makes while the host goes on.

On CUDA they go through pinned memory, from and to which the device copies by itself: what enters a network is on its
way while the network's first kernels are queued, and all that leaves it comes back together and is waited for once.
Python's lock is held across none of it.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from s2m3.agents.modules.nested_tensors import with_tensors

__all__ = ["Transfers", "joined", "pinned_empty"]

#: Bytes of a tensor below which the driver takes it into memory of its own at once, so that pinning gains nothing.
_LEAST = 65_536
#: Whether what enters networks of this process is to lie in pinned memory: of its one device.
_pins: list[bool] = []


class Transfers:
    """The copies to and from one device.

    Args:
        device: Its name.
        pins: Whether it copies from and to pinned memory by itself.
        wait: Waits for the copies that this thread has queued.
    """

    def __init__(self, device: str, *, pins: bool, wait: Callable[[], None]) -> None:
        self._device, self._pinned, self._wait = device, pins, wait
        _pins[:] = [pins]

    def to_device(self, value: Any) -> Any:
        """Returns a value with its tensors on the device, or on their way: what is queued there next finds them."""
        return with_tensors(value, self._sent)

    def _sent(self, tensor: Any) -> Any:
        if self._pinned and tensor.device.type == "cpu" and tensor.nbytes >= _LEAST and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def to_host(self, value: Any) -> Any:
        """Returns a value with its tensors in the host's memory, all there."""
        if not self._pinned:
            return with_tensors(value, lambda tensor: tensor.cpu())
        found = with_tensors(value, lambda tensor: tensor.to("cpu", non_blocking=True))
        self._wait()
        return found


def joined(tensors: Sequence[Any]) -> Any:
    """Returns tensors as one, row after row; in pinned memory if this process's device copies from there."""
    if len(tensors) == 1:
        return tensors[0]
    torch: Any = import_module("torch")
    if not any(_pins) or sum(tensor.nbytes for tensor in tensors) < _LEAST:
        return torch.cat(tensors)
    first = tensors[0]
    rows = sum(len(tensor) for tensor in tensors)
    return torch.cat(tensors, out=pinned_empty((rows, *first.shape[1:]), first.dtype))


def pinned_empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Returns a tensor in pinned memory, its numbers not set."""
    return import_module("torch").empty(shape, dtype=dtype, pin_memory=True)
