"""The command `plan`: where modules would live, without a single device."""

from pathlib import Path
from typing import Annotated

import typer

from planner.greedy import greedy
from planner.latency import Evaluator
from s2m3 import logs, options
from schemas.instance import load_instance

__all__ = ["plan"]


def plan(
    file: Annotated[Path, typer.Argument(help="instance file (docs/placement.md)")],
    *,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Place modules on devices, offline. `s2m3 plan examples/home.json`."""
    logs.configure(verbose=verbose, quiet=True)
    instance = load_instance(file)
    typer.echo(f"{greedy(instance)} {Evaluator(instance)} {as_json}")
