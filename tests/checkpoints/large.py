"""A LLaVA whose language model is as large as wanted, written without ever being in memory; and a process's peak."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as t

from tests.checkpoints.tiny import IMAGE, SIZE, VICUNA, pictures, tokenizer

_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
_LOAD = """
import sys
from pathlib import Path
from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
folder, part, dtype = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
specs = definition_of(read_checkpoint(folder), folder.name, dtype=dtype).modules
spec = next(spec for spec in specs if spec.prefix == part)
module = registry.load(spec, CheckpointSources((folder.parent,)))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(int(peak) * 1024, module.nbytes)
"""


def make_large(folder: Path, width: int, layers: int, dtype: torch.dtype, *, shards: int = 1) -> None:
    """Writes a checkpoint with a Llama of `layers` layers of `width` numbers, all weights 2^-7."""
    words = t.LlamaConfig(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=8,
        vocab_size=SIZE, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    vision = t.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    )
    config = t.LlavaConfig(
        vision_config=vision,
        text_config=words,
        image_token_index=IMAGE,
        architectures=["LlavaForConditionalGeneration"],
    )
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in t.LlavaForConditionalGeneration(config).state_dict().items()}
    config.save_pretrained(folder)
    t.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0).save_pretrained(folder)
    tokenizer(folder, longest=64)
    pictures(folder)
    (folder / "chat_template.jinja").write_text(VICUNA)
    names = [list(shapes)[number::shards] for number in range(shards)]
    files = [f"model-{number}.safetensors" for number in range(shards)] if shards > 1 else ["model.safetensors"]
    for file, inside in zip(files, names, strict=True):
        _write(folder / file, {name: shapes[name] for name in inside}, dtype)
    if shards > 1:
        places = {name: file for file, inside in zip(files, names, strict=True) for name in inside}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _write(path: Path, shapes: dict[str, torch.Size], dtype: torch.dtype) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + shape.numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    numbers = torch.full((1 << 20,), 2.0**-7, dtype=dtype).view(torch.uint8).numpy().tobytes()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(numbers)):
            file.write(numbers[: end - start])


def peak_of(folder: Path, part: str, dtype: str) -> tuple[int, int]:
    """Returns the peak of a process that loads one part (VmHWM), and what the part holds; bytes."""
    command = [sys.executable, "-c", _LOAD, str(folder), part, dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, held = done.stdout.split()
    return int(peak), int(held)
