"""Trains the easy-vqa head on the frozen shared encoders: `python -m s2m3.agents.zoo.train_vqa` (deploy/train.txt).

Prints the accuracy on the test set next to what is reached without the right picture and by the commonest answer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import easy_vqa
import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import nn

from s2m3.agents.registry import load
from s2m3.agents.zoo.vqa import ANSWERS, FEATURES, LAYERS
from s2m3.agents.zoo.wheels import shipped_weights
from s2m3.schemas.definitions import shipped_catalogue

__all__ = ["main"]

_SEED = 0
_EPOCHS, _BATCH, _RATE, _DECAY, _DROPOUT = 60, 256, 2e-3, 0.01, 0.1


@dataclass(frozen=True)
class Split:
    """Questions about pictures: pictures' features (n, 1280), questions' embeddings (q, 384), rows of both, answers."""

    features: torch.Tensor
    embeddings: torch.Tensor
    picture: torch.Tensor
    question: torch.Tensor
    answer: torch.Tensor

    def inputs(self, rows: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """Returns (rows, 1664): the given pictures' features beside the rows' questions."""
        return torch.cat([self.features[pictures], self.embeddings[self.question[rows]]], 1)


def _encode(asked: tuple[list[str], list[str], list[int]], paths: Mapping[int, str]) -> Split:
    """Runs the shared encoders over a set (texts, answers, picture ids): each picture and distinct question once."""
    texts, answers, image_ids = asked
    modules = shipped_catalogue().modules
    vision, text = load(modules["efficientnet-lite0"]), load(modules["minilm"])
    pictures = {image_id: row for row, image_id in enumerate(sorted(set(image_ids)))}
    questions = {question: row for row, question in enumerate(sorted(set(texts)))}
    features = []
    for image_id in pictures:
        item = vision.prepare({"image": Path(paths[image_id]).read_bytes()})
        features.append(vision.run([item], frozenset({"features"}))[0]["features"])
    (embedded,) = text.run([text.prepare({"text": list(questions)})], frozenset({"embedding"}))
    return Split(
        torch.from_numpy(np.concatenate(features)),
        torch.from_numpy(embedded["embedding"]),
        torch.tensor([pictures[i] for i in image_ids]),
        torch.tensor([questions[t] for t in texts]),
        torch.tensor([ANSWERS.index(a) for a in answers]),
    )


def _train(split: Split) -> nn.Sequential:
    """Returns the trained head, with the features' standardisation folded into its first layer."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(LAYERS):
        layers += [nn.Linear(inside, outside), nn.ReLU(), nn.Dropout(_DROPOUT)]
    head = nn.Sequential(*layers[:-2])
    mean, deviation = torch.zeros(LAYERS[0]), torch.ones(LAYERS[0])
    mean[:FEATURES], deviation[:FEATURES] = split.features.mean(0), split.features.std(0) + 1e-3
    steps = _EPOCHS * -(-len(split.answer) // _BATCH)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    for _ in range(_EPOCHS):
        for rows in torch.split(torch.randperm(len(split.answer)), _BATCH):
            inputs = (split.inputs(rows, split.picture[rows]) - mean) / deviation
            loss = nn.functional.cross_entropy(head(inputs), split.answer[rows])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        weight, bias, *_ = head.parameters()
        weight.div_(deviation)
        bias.sub_(weight @ mean)
    return head.eval()


@torch.inference_mode()
def _accuracy(head: nn.Sequential, split: Split, pictures: torch.Tensor) -> float:
    rows = torch.arange(len(split.answer))
    right = head(split.inputs(rows, pictures)).argmax(1) == split.answer
    return float(right.double().mean())


def main() -> None:
    """Trains, tests and writes agents/zoo/weights/easy-vqa.safetensors."""
    torch.manual_seed(_SEED)
    train = _encode(easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths())
    test = _encode(easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths())
    head = _train(train)
    shuffled = test.picture[torch.randperm(len(test.picture))]
    commonest = Counter(train.answer.tolist()).most_common(1)[0][0]
    typer.echo(f"test accuracy over {len(test.answer)} questions: {_accuracy(head, test, test.picture):.4f}")
    typer.echo(f"  with another picture's features: {_accuracy(head, test, shuffled):.4f}")
    typer.echo(f"  always '{ANSWERS[commonest]}': {(test.answer == commonest).double().mean().item():.4f}")
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    weights = {f"{n}.{name}": value for n, layer in enumerate(linear) for name, value in layer.state_dict().items()}
    path = shipped_weights("easy-vqa")
    save_file(weights, path)
    typer.echo(f"{path.name}: {sum(w.numel() for w in weights.values())} weights, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
