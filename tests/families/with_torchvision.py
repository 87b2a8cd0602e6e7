"""What transformers says with the package torchvision, in a process of its own: other tests run without that package.

`python -m tests.families.with_torchvision CHECKPOINT FOLDER` writes, for each request of LFM2-VL, the answer of the
whole model (answers.json), and what each image processor in OVER_TORCH makes of three pictures (pixels.safetensors).
"""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as t
from PIL import Image
from safetensors.torch import save_file

from s2m3.schemas.checkpoints.processors import OVER_TORCH
from tests.families.family import LONGEST
from tests.zoo.samples import sample

__all__ = ["ANSWERS", "ASKED", "PIXELS", "pixels_of", "written"]

CAT, ROCKET = sample("chelsea.jpg"), sample("rocket.jpg")
ASKED: list[dict[str, Any]] = [
    {"image": CAT, "text": "what is this"},
    {"image": ROCKET, "text": "who sits there"},
    {"image": [CAT, ROCKET], "text": "what is this"},
]
ANSWERS, PIXELS = "answers.json", "pixels.safetensors"
#: torch's minor version -> torchvision's, which moves with it (2.13 and 0.28).
_OFFSET = 15


def _installed() -> Path:
    """The folder of a torchvision for this torch, beside the packages of this environment; installed once."""
    release = f"0.{int(version('torch').split('.')[1]) + _OFFSET}.0"
    folder = Path(sys.prefix) / "for-tests" / f"torchvision-{release}"
    if not folder.is_dir():
        where = ["--target", str(folder), f"torchvision=={release}"]
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", *where], check=True, timeout=300)
    return folder


@cache
def written(checkpoint: Path) -> Path:
    """Runs this file over a checkpoint of LFM2-VL, with torchvision; returns the folder of what it wrote."""
    folder = checkpoint.with_name(f"{checkpoint.name}-with-torchvision")
    folder.mkdir()
    paths = os.pathsep.join([str(_installed()), *filter(None, sys.path)])
    how = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", __name__, str(checkpoint), str(folder)], check=True, timeout=300, env=how)
    return folder


def pixels_of(processor: Any) -> Mapping[str, torch.Tensor]:
    """What an image processor makes of a picture, a small one and a wide one."""
    picture = Image.open(io.BytesIO(CAT)).convert("RGB")
    found: dict[str, torch.Tensor] = {}
    for number, one in enumerate((picture, picture.resize((37, 51)), picture.resize((900, 420)))):
        found |= dict(_flat(str(number), dict(processor(one, return_tensors="pt"))))
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, Mapping | list | tuple):
        for key, inside in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _flat(f"{name}.{key}", inside)
    elif value is not None:
        yield name, torch.as_tensor(value).contiguous()


def _import_torchvision() -> None:
    """Imports torchvision; where its operators are for another torch than this, with their names alone."""
    if version("torch").endswith("+cpu"):
        found = find_spec("torchvision")
        assert found is not None
        assert found.origin is not None
        text = (Path(found.origin).parent / "_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for names in re.findall(r'register_fake\("torchvision::(\w+)"|@register_meta\("(\w+)"', text):
            library.define(f"{''.join(names)}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    import_module("torchvision")


def _answers(folder: Path) -> list[dict[str, Any]]:
    """As the model card says: AutoProcessor, the chat template with pictures, `generate`."""
    processor: Any = t.AutoProcessor.from_pretrained(folder)
    network = t.Lfm2VlForConditionalGeneration.from_pretrained(folder).eval()
    answers = []
    for inputs in ASKED:
        files = inputs["image"] if isinstance(inputs["image"], list) else [inputs["image"]]
        content = [{"type": "image", "image": Image.open(io.BytesIO(data)).convert("RGB")} for data in files]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": inputs["text"]}]}]
        prepared = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            ids = network.generate(**prepared, max_new_tokens=LONGEST, do_sample=False)
        new = ids[0][prepared["input_ids"].shape[1] :].tolist()
        text = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        answers.append({"text": text, "finished": "stop" if 2 in new else "length"})
    return answers


if __name__ == "__main__":
    _import_torchvision()
    source, out = map(Path, sys.argv[1:])
    made = {name: pixels_of(getattr(t, name)()) for name in sorted(OVER_TORCH)}
    save_file({f"{name}.{key}": value for name, found in made.items() for key, value in found.items()}, out / PIXELS)
    (out / ANSWERS).write_text(json.dumps(_answers(source)))
