"""Every architecture, split over two agent processes on a real broker, answers as the whole model in one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from tests.checkpoints import whole
from tests.checkpoints.conftest import NODES
from tests.zoo.samples import sample
from tests.zoo.test_against_whole import assert_same

TEXTS = ["a photo of the cat", "a dog", "what is this on the mat", "two"]
CAT, ROCKET = sample("chelsea.jpg"), sample("rocket.jpg")
SOUNDS = sample("play-music.flac"), sample("quick-brown-fox.flac")
Whole = Callable[..., dict[str, Any]]


def _judged(folder: Path, image: bytes) -> dict[str, Any]:
    said = whole.encoder_decoder(folder.parent / "tiny-vit-gpt2", image)["text"]
    return whole.text_classifier(folder.parent / "tiny-distilbert", said)


CASES: list[tuple[str, Whole, dict[str, Any]]] = [
    *(("tiny-clip", whole.clip, {"image": image, "text": TEXTS}) for image in (CAT, ROCKET)),
    *(("tiny-clip-resnet", whole.clip_resnet, {"image": image, "text": TEXTS}) for image in (CAT, ROCKET)),
    *(("tiny-siglip", whole.siglip, {"image": image, "text": TEXTS}) for image in (CAT, ROCKET)),
    *(("tiny-clap", whole.clap, {"audio": sound, "text": TEXTS}) for sound in SOUNDS),
    *(("tiny-vit-gpt2", whole.encoder_decoder, {"image": image}) for image in (CAT, ROCKET)),
    *(("tiny-blip", whole.blip, {"image": image}) for image in (CAT, ROCKET)),
    *(("tiny-blip-vqa", whole.blip, {"image": CAT, "text": text}) for text in TEXTS[:2]),
    *(("tiny-llava", whole.llava, {"image": image, "text": "what is this"}) for image in (CAT, ROCKET)),
    *(("tiny-whisper", whole.whisper, {"audio": sound}) for sound in SOUNDS),
    *(("tiny-vit", whole.image_classifier, {"image": image}) for image in (CAT, ROCKET)),
    *(("tiny-resnet", whole.image_classifier, {"image": image}) for image in (CAT, ROCKET)),
    *(("encoder-vqa", whole.encoder_vqa, {"image": CAT, "text": text}) for text in TEXTS[:2]),
    *(("judged-caption", _judged, {"image": image}) for image in (CAT, ROCKET)),
]


@pytest.mark.parametrize(
    ("task", "together", "inputs"), CASES, ids=[f"{n}-{task}" for n, (task, *_) in enumerate(CASES)]
)
def test_a_split_checkpoint_answers_as_the_whole_one(
    client: Client, tiny: Path, task: str, together: Whole, inputs: dict[str, Any]
) -> None:
    answer = client.ask(task, **inputs)
    assert set(answer.route.values()) == NODES.keys()
    with torch.inference_mode():
        assert_same(dict(answer.outputs), together(tiny / _folder(task), **inputs))


def _folder(task: str) -> str:
    return task if task.startswith("tiny-") else "tiny-clip"


def test_some_of_them_are_in_several_files(tiny: Path) -> None:
    assert [path.parent.name for path in sorted(tiny.glob("*/model.safetensors.index.json"))] == [
        "tiny-clip",
        "tiny-llava",
    ]


def test_each_agent_holds_the_bytes_of_its_own_parts_and_says_what_they_are(split: Cluster) -> None:
    with Site(split.settings) as site:
        reports = [report for reported in site.reported.values() for report in reported.modules.values()]
    assert all(len(report.fingerprint) == 64 for report in reports)
    assert all(0 < report.bytes < 10_000_000 for report in reports)
