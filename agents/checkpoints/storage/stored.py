"""A tensor of a checkpoint's file, read only when it is asked for, and straight into the dtype that is asked for."""

import warnings
from types import EllipsisType
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch

from s2m3.agents.checkpoints.storage.part import map_raw, read_raw
from s2m3.schemas.checkpoints.headers import TensorInfo
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["StoredTensor", "read_tensor"]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
#: Numbers that are converted at once.
_AT_ONCE = 1 << 22
#: The least bytes of a tensor that is worth being found again, and of one that is worth being mapped.
_LEAST, _LEAST_MAPPED = 4_096, 65_536
Bytes = npt.NDArray[np.uint8]
#: Hash of a tensor and dtype in memory -> its bytes, as long as a network of this process holds them.
_HELD: WeakValueDictionary[tuple[str, torch.dtype], Bytes] = WeakValueDictionary()


class StoredTensor:
    """An entry of a state dict, as transformers' loader takes it from safetensors: `stored[...].to(dtype=…)` reads it.

    Nothing of it is in memory before, and the caller holds the only copy after, unless another network of this process
    holds the same numbers in the same dtype: then both hold one copy. Nobody may write into it.

    Args:
        info: Where it is.
        digest: The hash of its numbers and shape; None if it is not known.
        mapped: Whether it is mapped from the file instead, where the file has the dtype that is asked for.
    """

    def __init__(self, info: TensorInfo, digest: str | None = None, *, mapped: bool = False) -> None:
        self._info, self._digest, self._mapped = info, digest, mapped

    @property
    def shape(self) -> torch.Size:
        """The shape."""
        return torch.Size(self._info.shape)

    def __getitem__(self, index: EllipsisType) -> "StoredTensor":
        """Returns the tensor itself, still unread: only `...` is ever asked for."""
        if index is not ...:
            raise TypeError(f"a stored tensor is read whole, not at {index!r}")
        return self

    def to(self, device: object = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Reads the tensor in a dtype; None is the dtype of the file. Tensors of integers keep theirs.

        Raises:
            ModuleFailedError: The file cannot be read, or has become shorter.
        """
        if device is not None and str(device) != "cpu":
            raise ModuleFailedError(f"weights are read into the memory of the processor, not of {device}")
        stored = _DTYPES[self._info.dtype]
        key = (self._digest or "", dtype if dtype is not None and stored.is_floating_point else stored)
        held = _HELD.get(key) if self._digest else None
        if held is None and self._mapped and _is_mappable(self._info, key[1]):
            held = map_raw(self._info)  # not kept for others: their weights are to be in memory
        elif held is None:
            held = _read(self._info, key[1])
            if self._digest and held.nbytes >= _LEAST:
                _HELD[key] = held
        return _as_tensor(held, key[1]).reshape(self._info.shape)


def _is_mappable(info: TensorInfo, wanted: torch.dtype) -> bool:
    """Whether a tensor can be used as it lies in its file: in the wanted dtype, and where numbers of it may begin."""
    return wanted == _DTYPES[info.dtype] and info.nbytes >= _LEAST_MAPPED and info.begin % wanted.itemsize == 0


def read_tensor(info: TensorInfo, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Returns one tensor. Beside it, at most a slice of it is in memory at any time.

    Args:
        info: Where it is.
        dtype: Of floating-point numbers; None is the dtype of the file.

    Raises:
        ModuleFailedError: The file cannot be read, or has become shorter.
    """
    stored = _DTYPES[info.dtype]
    wanted = stored if dtype is None or not stored.is_floating_point else dtype
    return _as_tensor(_read(info, wanted), wanted).reshape(info.shape)


def _read(info: TensorInfo, wanted: torch.dtype) -> Bytes:
    """Returns the numbers of a tensor in a dtype, as bytes."""
    stored = _DTYPES[info.dtype]
    if wanted == stored:
        return read_raw(info)
    found = np.empty(info.count * wanted.itemsize, np.uint8)
    for start in range(0, info.count, _AT_ONCE):
        count = min(_AT_ONCE, info.count - start)
        piece = TensorInfo(info.file, info.dtype, (count,), info.begin + start * stored.itemsize)
        _as_tensor(found, wanted)[start : start + count] = _as_tensor(read_raw(piece), stored)
    return found


def _as_tensor(raw: Bytes, dtype: torch.dtype) -> torch.Tensor:
    """Returns bytes as numbers; the tensor keeps the array alive."""
    if not raw.nbytes:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # mapped: nobody writes into weights
        return torch.from_numpy(raw).view(dtype)
