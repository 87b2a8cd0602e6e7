"""The options of `s2m3 task add` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Deadline",
    "DryRun",
    "Dtype",
    "MapWeights",
    "Model",
    "Name",
    "OrInputs",
    "OrModels",
    "PartOptions",
    "Pictures",
    "Prefer",
    "Replicas",
    "Share",
    "Source",
    "Texts",
    "Use",
    "Wait",
]

Name = Annotated[str, typer.Argument(help="name of the task")]
Model = Annotated[str, typer.Option("--model", help="one of `s2m3 models`, or the folder of a checkpoint")]
OrModels = Annotated[
    list[str] | None,
    typer.Option("--or", help="a model that answers while those before it cannot; repeat, the best first"),
]
OrInputs = Annotated[
    list[str] | None,
    typer.Option(help="NAME=TEXT for an input of --or models that requests do not give them; repeat for several"),
]
Texts = Annotated[list[str] | None, typer.Option("--text", help="default text; repeat for several")]
Pictures = Annotated[list[Path] | None, typer.Option("--image", help="default picture; repeat for several")]
Source = Annotated[
    str | None, typer.Option(help="a checkpoint's name in the agents' folders, where its path is another there")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="dtype of a checkpoint's weights: fp32, bf16, fp16, int8; default: as each agent chooses"),
]
Use = Annotated[str | None, typer.Option(help="use of a text model: embedding, similarity, ranking, pair, zero-shot")]
PartOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME=VALUE for a checkpoint's one part, or for the part that writes text; repeat"),
]
Share = Annotated[bool, typer.Option(help="share parts that other tasks hold already, found by their weights")]
Prefer = Annotated[str | None, typer.Option(help="nodes in order of preference: desktop,laptop")]
Replicas = Annotated[int, typer.Option(help="most copies of a module")]
Deadline = Annotated[float, typer.Option(help="seconds that a request may take")]
MapWeights = Annotated[
    bool,
    typer.Option(
        "--map-weights", help="where a part does not fit into any memory, map it from a disk: slow, not refused"
    ),
]
Wait = Annotated[bool, typer.Option(help="wait until the task can be asked; if it cannot, take it back")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what it costs, and where it would run")]
