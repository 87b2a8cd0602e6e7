"""The models that the tests split: those that the tiny checkpoints are, and two that join parts of several."""

from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import Definition, ModelSpec, ModuleSpec, StepSpec
from tests.checkpoints.whole import LONGEST


def definition(folder: Path, name: str) -> Definition:
    """What `task add --model` makes of a checkpoint; texts are kept short."""
    found = definition_of(read_checkpoint(folder / name), name)
    return found.model_copy(update={"modules": [_short(spec) for spec in found.modules]})


def _short(spec: ModuleSpec) -> ModuleSpec:
    return spec.model_copy(update={"config": {"max_new_tokens": LONGEST}}) if spec.class_ == "text-generator" else spec


def _steps(table: dict[str, Any]) -> dict[str, StepSpec]:
    return {name: StepSpec.model_validate(step) for name, step in table.items()}


def encoder_vqa(folder: Path) -> Definition:
    """CLIP's towers and a trained head over both embeddings."""
    vision, words, _ = definition(folder, "tiny-clip").modules
    head = ModuleSpec.model_validate(
        {
            "id": "tiny-fusion",
            "role": "head",
            "class": "classifier-head",
            "source": "tiny-fusion",
            "prefix": "head",
            "memory_mb": 0.1,
            "inputs": {"image": "tensor", "text": "tensor"},
            "outputs": {"label": "text", "score": "number", "ranking": "data", "logits": "tensor"},
        }
    )
    model = ModelSpec(
        id="encoder-vqa",
        description="",
        inputs={"image": "image", "text": "text"},
        answer=["label", "score", "ranking"],
        steps=_steps(
            {
                "image": {"module": vision.id, "inputs": {"image": "input.image"}},
                "words": {"module": words.id, "inputs": {"text": "input.text"}},
                "answer": {"module": head.id, "inputs": {"image": "image.embedding", "text": "words.embedding"}},
            }
        ),
    )
    return Definition(model=model, modules=[vision, words, head])


def judged_caption(folder: Path) -> Definition:
    """A text classifier as a head: it judges what a captioner says."""
    captioner, judge = definition(folder, "tiny-vit-gpt2"), definition(folder, "tiny-distilbert")
    steps = captioner.model.steps | _steps(
        {"judge": {"module": judge.modules[0].id, "inputs": {"text": "words.text"}}},
    )
    answer = ["label", "score", "ranking"]
    model = captioner.model.model_copy(update={"id": "judged-caption", "steps": steps, "answer": answer})
    return Definition(model=model, modules=[*captioner.modules, *judge.modules])


def all_definitions(folder: Path) -> dict[str, Definition]:
    """Returns task -> definition."""
    alone = [path.name for path in sorted(folder.iterdir()) if path.name not in ("tiny-fusion", "tiny-distilbert")]
    found = {name: definition(folder, name) for name in alone}
    return {**found, "encoder-vqa": encoder_vqa(folder), "judged-caption": judged_caption(folder)}
