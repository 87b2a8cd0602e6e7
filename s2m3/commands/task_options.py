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

Name = Annotated[str, typer.Argument(help="of the task")]
Model = Annotated[str, typer.Option("--model", help="see `s2m3 models`; or the folder of a checkpoint")]
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
    typer.Option(help="of a checkpoint's weights: fp32, bf16, fp16, int8; default: as each agent chooses"),
]
Use = Annotated[
    str | None, typer.Option(help="of a text model: embedding, similarity, ranking, pair, zero-shot; see the docs")
]
PartOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="of a checkpoint's one part, or of the one that writes: NAME=VALUE; repeat"),
]
Share = Annotated[bool, typer.Option(help="parts that other tasks hold already, found by their weights")]
Prefer = Annotated[str | None, typer.Option(help="nodes in order of preference: desktop,laptop")]
Replicas = Annotated[int, typer.Option(help="copies of a module at most")]
Deadline = Annotated[float, typer.Option(help="seconds a request may take")]
MapWeights = Annotated[
    bool,
    typer.Option(
        "--map-weights", help="where a part does not fit into any memory, map it from a disk: slow, not refused"
    ),
]
Wait = Annotated[bool, typer.Option(help="until it can be asked; if it cannot, take it back")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what it costs, and where it would run")]
