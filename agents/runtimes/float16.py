"""Exports whose matrices are float16: half to store, to send and to hold; they become float32 where they are used.

Computed in float16 they would be on few processors, and slowly on others. So each matrix is cast just before the
operator that takes it, in each run; of an embedding, the rows that were looked up alone.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["to_float16"]

#: Bytes from which on a tensor becomes float16: a matrix. Biases and norms stay float32.
_LEAST_BYTES = 16_384


def to_float16(path: Path) -> None:
    """Writes an ONNX file anew, with its matrices in float16. Its weights must lie in the file's own data files."""
    model = onnx.load(path)
    graph = model.graph
    taken = _taken(graph)
    for tensor in list(graph.initializer):
        name = tensor.name
        if tensor.data_type != TensorProto.FLOAT or name not in taken:
            continue
        numbers = numpy_helper.to_array(tensor)
        if numbers.nbytes < _LEAST_BYTES or float(np.abs(numbers).max()) > float(np.finfo(np.float16).max):
            continue
        tensor.CopyFrom(numpy_helper.from_array(numbers.astype(np.float16), name))
        # a tensor that is an input too is no constant: ONNX Runtime does not cast it once and keep it as float32
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, numbers.shape))
        _cast(graph, name, taken[name])
    for beside in path.parent.glob(f"{path.name}*"):
        beside.unlink()
    onnx.save_model(model, path)


def _taken(graph: Any) -> dict[str, list[Any]]:
    """Returns the nodes that take each tensor; a tensor that a node's own graphs take is left out."""
    found, inside = defaultdict[str, list[Any]](list), set[str]()
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found[name].append(node)
        for attribute in node.attribute:
            for below in (attribute.g, *attribute.graphs):
                inside |= _names_in(below)
    return {name: nodes for name, nodes in found.items() if name not in inside}


def _names_in(graph: Any) -> set[str]:
    names = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            for below in (attribute.g, *attribute.graphs):
                names |= _names_in(below)
    return names


def _cast(graph: Any, name: str, nodes: list[Any]) -> None:
    """Casts a tensor before each node that takes it, or what a node looked up in it."""
    for number, node in enumerate(nodes):
        at = next(index for index, one in enumerate(graph.node) if one is node or one == node)
        cast = f"{name}_float32_{number}"
        if node.op_type == "Gather" and node.input[0] == name:
            made = node.output[0]
            node.output[0] = cast
            graph.node.insert(at + 1, helper.make_node("Cast", [cast], [made], name=cast, to=TensorProto.FLOAT))
            continue
        graph.node.insert(at, helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT))
        taker = graph.node[at + 1]
        for index, given in enumerate(taker.input):
            if given == name:
                taker.input[index] = cast
