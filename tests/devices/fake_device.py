"""A torch device `fake:0` that is the CPU under another name: tensors there and on the CPU do not mix, as on a GPU."""

from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["ROOM", "FakeTensor", "Stream", "register"]

NAME = "fake"
#: Most bytes of a tensor that is sent to the device; empty: any number.
ROOM: list[int] = []
#: A device that is made in Python has no inference tensors.
torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]


class FakeTensor(torch.Tensor):
    """A tensor on the device; `raw` is the CPU's tensor behind it."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls: Any, raw: torch.Tensor) -> Any:
        """Makes a tensor of the shape and dtype of another, without memory of its own."""
        how: dict[str, Any] = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, raw.size(), **how, device=torch.device(NAME, 0))  # noqa: SLF001  # torch's own way

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Computes with the tensors behind."""
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    if name == "_to_copy":
        return _copied(func, args[0], dict(kwargs))
    if name == "copy_":
        _raw(args[0]).copy_(_raw(args[1]))
        return args[0]
    decomposed = func.decompose(*args, **kwargs)
    if decomposed is not NotImplemented:
        return decomposed
    if name not in {"index", "index_put_"} and any(not isinstance(t, FakeTensor) and t.dim() for t in tensors):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device: fake:0 and cpu")
    given = {key: "cpu" if key == "device" else value for key, value in tree_map(_raw, kwargs).items()}
    known = {id(tensor.raw): tensor for tensor in tensors if isinstance(tensor, FakeTensor)}
    found = func(*tree_map(_raw, args), **given)
    return tree_map(lambda value: _wrapped(value, known), found)


def _wrapped(value: Any, known: dict[int, FakeTensor]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return known[id(value)] if id(value) in known else FakeTensor(value)


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, FakeTensor) else value


def _copied(func: Any, source: torch.Tensor, how: dict[str, Any]) -> torch.Tensor:
    to = how.pop("device", None)
    how.pop("pin_memory", None)
    stays = isinstance(source, FakeTensor) if to is None else torch.device(to).type == NAME
    found = func(_raw(source), **how)
    if stays and ROOM and found.nbytes > ROOM[0]:
        raise torch.OutOfMemoryError(f"fake out of memory: tried to allocate {found.nbytes} bytes")
    if Stream.late and not stays and isinstance(source, FakeTensor) and how.get("non_blocking"):
        Stream.queued.append((found, found.clone()))
        found.fill_(torch.nan)
    return FakeTensor(found) if stays else found


class Stream:
    """The device's stream: where copies are late, the host's tensor has its numbers once the stream is waited for."""

    late = False
    queued: list[tuple[torch.Tensor, torch.Tensor]] = []  # noqa: RUF012  # of the one stream

    def synchronize(self) -> None:
        """Lets all copies that were queued arrive."""
        for target, numbers in self.queued:
            target.copy_(numbers)
        self.queued.clear()


def register() -> None:
    """Adds the device to torch, in this process, for good."""
    _setup_privateuseone_for_python_backend(NAME)
    library: Any = torch.library.Library("_", "IMPL")  # type: ignore[no-untyped-call]  # for the life of the process
    library.fallback(lambda func, *args, **kwargs: _computed(func, args, kwargs), "PrivateUse1")
    factories: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for func in (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_strided.default):
        factories.impl(func, _factory(func), "PrivateUse1")
    _KEPT.extend([library, factories])
    for func in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default):  # noqa: SLF001
        factories.impl(func, partial(_called, func), "PrivateUse1")


_KEPT: list[Any] = []


def _called(func: Any, *args: Any, **how: Any) -> Any:
    return _computed(func, args, how)


def _factory(func: Any) -> Any:
    def made(*args: Any, **how: Any) -> FakeTensor:
        return FakeTensor(func(*args, **{**how, "device": "cpu", "pin_memory": False}))

    return made
