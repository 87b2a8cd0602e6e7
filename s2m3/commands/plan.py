"""The command `plan`: computes a placement of modules on devices offline, without a bus."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from s2m3 import logs
from s2m3.commands import options
from s2m3.planner.catalogue import catalogue_of
from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.definitions import Catalogue
from s2m3.schemas.dtypes import SHARES
from s2m3.schemas.errors import BadInputError, NoCapacityError
from s2m3.schemas.instance import Instance, load_instance
from s2m3.schemas.settings import CheckpointSettings

if TYPE_CHECKING:
    from s2m3.planner.solving.solve import Method, Solution

__all__ = ["plan"]

_METHODS = ("auto", "greedy", "exact")
_NO_CAPACITY = 3
_DEVICES = '{"devices": [{"id": "pi5", "memory_mb": 4000, "gflops": 60, "gb_s": 12, "latency_ms": 2, "mbps": 100}]}'


def plan(
    file: Annotated[Path | None, typer.Argument(help="devices, modules and tasks as JSON; --write makes one")] = None,
    *,
    models: Annotated[str | None, typer.Option(help="instead of a file: models, with commas between")] = None,
    devices: Annotated[Path | None, typer.Option(help="JSON file of what to place --models on")] = None,
    dtype: Annotated[str, typer.Option(help=f"of the weights of --models: {', '.join(SHARES)}")] = "float32",
    source: Annotated[str | None, typer.Option(help="the device that asks --models")] = None,
    definitions: Annotated[Path | None, typer.Option(help="folder of further model definitions")] = None,
    architectures: options.Architectures = None,
    write: Annotated[Path | None, typer.Option(help="write the instance file of --models, and place nothing")] = None,
    method: Annotated[str, typer.Option(help=" | ".join(_METHODS))] = "auto",
    budget: Annotated[float | None, typer.Option(help="seconds it may take; default: 1 (auto), 60 (exact)")] = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Place modules on devices, offline. `s2m3 plan home.json`.

    Or models of which nothing is there yet, their sizes by their configurations:
    `s2m3 plan --models clip-vit-l14-336,llava-7b --devices devices.json --dtype bfloat16`.
    """
    logs.configure(verbose=verbose, quiet=True)
    if method not in _METHODS:
        raise BadInputError(f"--method is one of {', '.join(_METHODS)}, not {method!r}")
    if (file is None) == (models is None):
        raise BadInputError("either an instance file, or --models and --devices")
    if file is not None:
        instance = load_instance(file)
    else:
        own = own_architectures(CheckpointSettings.load(architectures=architectures).architectures)
        catalogue = catalogue_of(definitions, own)
        instance = _estimated(models or "", catalogue, devices, dtype=dtype, source=source)
    if write is not None:
        try:
            write.write_text(instance.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise BadInputError(f"--write: {error}") from error
        typer.echo(f"written to {write}; `s2m3 plan {write}` places it")
        return
    from s2m3.planner.solving.solve import solve  # noqa: PLC0415  # slow to import, and only this command needs it

    try:
        solution = solve(instance, method=cast("Method", method), budget_s=budget)
    except NoCapacityError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
        sys.exit(_NO_CAPACITY)
    if as_json:
        typer.echo(json.dumps(solution.to_json(), ensure_ascii=False))
    else:
        _show(instance, solution)


def _estimated(models: str, catalogue: Catalogue, devices: Path | None, *, dtype: str, source: str | None) -> Instance:
    """Returns the instance of models on devices described in a file."""
    from s2m3.planner.solving.estimate import assumed_devices, estimated_instance  # noqa: PLC0415  # as above

    if devices is None:
        raise BadInputError(f"--models needs --devices, a JSON file of what to place them on: {_DEVICES}")
    found = assumed_devices(read_json(devices), devices.name)
    names = [name.strip() for name in models.split(",") if name.strip()]
    return estimated_instance(catalogue, names, found, dtype=dtype, source=source)


def _show(instance: Instance, solution: "Solution") -> None:
    console = Console()
    table = Table("device", "memory MB", "holds", box=box.SIMPLE)
    for device in instance.devices:
        held = sorted(module for module, devices in solution.placement.items() if device.id in devices)
        table.add_row(
            device.id, f"{solution.memory_mb[device.id]:.0f} / {device.memory_mb:.0f}", ", ".join(held) or "-"
        )
    console.print(table)
    table = Table("task", "latency", "route", box=box.SIMPLE)
    for task, found in solution.tasks.items():
        route = " ".join(f"{step}:{device}" for step, device in found.route.items())
        table.add_row(task, f"{found.latency_s * 1000:.1f} ms", route)
    console.print(table)
    gap = solution.objective_s - solution.lower_bound_s
    proof = (
        "proven optimal"
        if solution.proven_optimal
        else f"at most {100 * gap / max(solution.objective_s, 1e-9):.1f} % above the best"
    )
    console.print(
        f"objective {solution.objective_s:.4f} s, {proof}; {solution.method}, {solution.solve_s * 1000:.0f} ms"
    )
