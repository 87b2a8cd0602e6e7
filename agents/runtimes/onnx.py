"""Networks run by ONNX Runtime. It maps a file's weights, and makes copies of most of them for its operators."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Array
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["RAISED", "OnnxNetwork", "exported_network", "set_threads", "threads"]

#: Log only what ends a call: each warning of ONNX Runtime is about the graph, and nothing that a user can change.
_ERRORS_ONLY = 3
#: Compute threads of each network; empty: ONNX Runtime's default, one per core.
_threads: list[int] = []
#: ONNX Runtime's own exceptions, which have no base class in common.
_OWN: list[type[Exception]] = [
    kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
]
#: What ONNX Runtime raises.
RAISED: tuple[type[Exception], ...] = (OSError, RuntimeError, ValueError, *_OWN)


def set_threads(threads: int) -> None:
    """Sets the compute threads of the networks that are built from now on."""
    _threads[:] = [threads]


def threads() -> int | None:
    """Returns the compute threads of each network; None is ONNX Runtime's default, one per core."""
    return _threads[0] if _threads else None


def exported_network(part: ExportedPart, name: str) -> "OnnxNetwork":
    """Returns the network in a file of an exported part, with mapped weights if the part's module says so.

    Raises:
        ModuleFailedError: There is no such file, or it cannot be run.
    """
    return OnnxNetwork(part.file(name), mapped=part.spec.map_weights == "always")


class OnnxNetwork:
    """A network from an ONNX file.

    Args:
        path: The file; external data lies beside it.
        mapped: Whether its weights stay in the file's pages alone, which is slower: neither arranged anew for an
            operator (prepacking) nor for operators that are joined (the graph's optimization).

    Raises:
        ModuleFailedError: It cannot be read, or is of an operator set that this ONNX Runtime does not have.
    """

    def __init__(self, path: Path, *, mapped: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.enable_cpu_mem_arena = (
            False  # it never gives back what the largest batch took; malloc keeps enough (memory.py)
        )
        options.enable_mem_pattern = False  # shapes differ from request to request
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes have work too
        if mapped:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if _threads:
            options.intra_op_num_threads = _threads[0]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except RAISED as error:
            raise ModuleFailedError(f"{path.name} cannot be run: {error}"[:300]) from error
        self.takes = frozenset(one.name for one in self._session.get_inputs())
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        self.nbytes = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))

    def __call__(self, **inputs: Array) -> list[Array]:
        """Computes all outputs of one batch."""
        return self.some(self.outputs, **inputs)

    def some(self, names: Sequence[str], **inputs: Array) -> list[Array]:
        """Computes the named outputs of one batch, in the order of the names."""
        found: list[Array] = self._session.run(list(names), inputs)
        return found
