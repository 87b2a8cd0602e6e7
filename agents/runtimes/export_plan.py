"""What of a module is exported to ONNX: networks with inputs to compare them on, and files. Without ONNX's packages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s2m3.agents.runtimes.network import Array
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.schemas.wire.values import Value

__all__ = ["Export", "ExportedNetwork", "Sample"]

Sample = Mapping[str, Array]


@dataclass(frozen=True)
class ExportedNetwork:
    """One network of a module.

    Args:
        network: Run by torch.
        samples: Inputs on which both runtimes are compared, of different lengths wherever a length may differ; the
            first is what the export traces, and what is timed.
        free: Input -> the dimensions whose lengths may differ.
    """

    network: TorchNetwork
    samples: Sequence[Sample]
    free: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Export:
    """What of a module goes into its part.

    Args:
        networks: Name of the file without `.onnx` -> network.
        files: Name -> bytes of further files.
        notes: What the class wants to be told when a module is built of the part.
        items: Items of which the module of the part must make what the module of torch makes.
        wanted: Outputs that are compared.
        ranked: Further items on which an export in int8 must rank as float32 ranks.
    """

    networks: Mapping[str, ExportedNetwork] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Mapping[str, Value]] = ()
    wanted: frozenset[str] = frozenset()
    ranked: Sequence[Mapping[str, Value]] = ()
