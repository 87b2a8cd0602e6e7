"""The same tasks with ONNX Runtime and faster-whisper (int8), as one would build them without torch in the server.

The two networks are exported once, in a process that has torch: `python -m peer_servers.onnx_modules FOLDER`.
"""

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from s2m3.agents.media.pictures import square_pixels
from s2m3.agents.modules.ranking import softmax
from s2m3.agents.zoo.conse import load_conse
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.schemas.definitions import shipped_catalogue

__all__ = ["OnnxModules", "export"]

_MODULES = shipped_catalogue().modules
_VISION, _TEXT, _SPEECH = (_MODULES[name] for name in ("efficientnet-lite0", "minilm", "whisper-tiny-en-encoder"))
_SIDE = 224
_MOST_TOKENS = 256


def export(folder: Path) -> None:
    """Writes vision.onnx, text.onnx and classes.npz into a folder."""
    import torch  # noqa: PLC0415  # only the exporting process has it

    from s2m3.agents import registry  # noqa: PLC0415
    from s2m3.agents.checkpoints.storage.folders import CheckpointSources  # noqa: PLC0415

    class _Hidden(torch.nn.Module):
        """The network with a tensor for its result."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
            return hidden

    folder.mkdir(parents=True, exist_ok=True)
    vision: Any
    text: Any
    classes: Any
    vision, text, classes = (  # torch's own networks are inside, without what S2M3 does around them
        registry.load(_MODULES[name], CheckpointSources())
        for name in ("efficientnet-lite0", "minilm", "imagenet-linear")
    )
    many = {0: "items"}
    torch.onnx.export(
        vision.network.module.network,
        (torch.zeros(1, 3, _SIDE, _SIDE),),
        folder / "vision.onnx",
        input_names=["pixels"],
        output_names=["features"],
        dynamic_axes={"pixels": many, "features": many},
        dynamo=False,
    )
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {0: "items", 1: "tokens"}
    torch.onnx.export(
        _Hidden(text.network.module.network),
        (ids, ids),
        folder / "text.onnx",
        input_names=["ids", "mask"],
        output_names=["hidden"],
        dynamic_axes={"ids": axes, "mask": axes, "hidden": axes},
        dynamo=False,
    )
    np.savez(folder / "classes.npz", weight=classes.weight, bias=classes.bias, names=classes.names)


class OnnxModules:
    """Answers tasks in this process.

    Args:
        folder: What `export` wrote.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime  # noqa: PLC0415  # peers are not installed where they are not measured
        from faster_whisper import WhisperModel  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("PEER_THREADS", "0"))  # 0: one for each core
        self._vision, self._text = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in ("vision", "text")
        )
        classes = np.load(folder / "classes.npz")
        self._weight, self._bias, self._names = classes["weight"], classes["bias"], classes["names"].tolist()
        self._tokenizer = Tokenizer.from_file(str(wheel_file(_TEXT.source, "model/tokenizer.json")))
        self._tokenizer.enable_truncation(_MOST_TOKENS)
        self._tokenizer.enable_padding()
        self._rank = load_conse(_MODULES["conse"])
        speech = wheel_file(_SPEECH.source, "model/model.bin").parent
        self._speech = WhisperModel(str(speech), device="cpu", compute_type="int8")

    def ask(self, task: str, inputs: Mapping[str, Any]) -> Any:
        """Returns a task's answer: the label, or the text."""
        if task == "transcription":
            pieces, _ = self._speech.transcribe(io.BytesIO(inputs["audio"]), language="en", beam_size=1)
            return "".join(piece.text for piece in pieces).strip()
        pixels = square_pixels(inputs["image"], _SIDE)[None].transpose(0, 3, 1, 2).astype(np.float32)
        (features,) = self._vision.run(None, {"pixels": (pixels - 127.0) / 128.0})
        logits = features @ self._weight.T + self._bias
        if task == "classification":
            return self._names[int(softmax(logits[0]).argmax())]
        texts = list(inputs["text"])
        pair = {"logits": logits, "embedding": self._embedding(texts), "text": texts}
        return self._rank.run([self._rank.prepare(pair)], frozenset({"label"}))[0]["label"]

    def _embedding(self, texts: list[str]) -> Any:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([one.ids for one in encoded], np.int64)
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        (hidden,) = self._text.run(None, {"ids": ids, "mask": mask})
        shown = mask[..., None].astype(np.float32)
        mean = (hidden * shown).sum(1) / shown.sum(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


if __name__ == "__main__":
    export(Path(sys.argv[1]))
