"""The command `plan`: computes placements of modules on devices offline, without a bus."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2m3 import logs
from s2m3.commands import options
from s2m3.planner.catalogue import catalogue_of
from s2m3.schemas.checkpoints.headers import read_json
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.definitions import Catalogue
from s2m3.schemas.dtypes import SHARES
from s2m3.schemas.errors import BadInputError, NoCapacityError
from s2m3.schemas.instance import Instance, parse_instance, read_document
from s2m3.schemas.instance_paths import Sweep, read_sweep, without_device
from s2m3.schemas.settings import CheckpointSettings

if TYPE_CHECKING:
    from s2m3.planner.solving.compare import Case

__all__ = ["plan"]

_METHODS = ("auto", "greedy", "exact")
_NO_CAPACITY = 3
_DEVICES = '{"devices": [{"id": "pi5", "memory_mb": 4000, "gflops": 60, "gb_s": 12, "latency_ms": 2, "mbps": 100}]}'
_COMPARED = "methods beside each other: auto,exact,greedy,greedy:memory,random,single:DEVICE"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The methods and sweeps of a comparison, and the form of the output."""

    methods: tuple[str, ...]
    sweeps: tuple[Sweep, ...]
    many: bool
    budget_s: float | None
    seed: int
    form: str
    plot: Path | None


def plan(
    file: Annotated[Path | None, typer.Argument(help="devices, modules and tasks as JSON; --write makes one")] = None,
    *,
    models: Annotated[str | None, typer.Option(help="models to place, instead of a file; separated by commas")] = None,
    devices: Annotated[Path | None, typer.Option(help="JSON file of what to place --models on")] = None,
    dtype: Annotated[str, typer.Option(help=f"dtype of the weights of --models: {', '.join(SHARES)}")] = "float32",
    source: Annotated[str | None, typer.Option(help="device that sends the requests to --models")] = None,
    definitions: Annotated[Path | None, typer.Option(help="folder of further model definitions")] = None,
    architectures: options.Architectures = None,
    write: Annotated[Path | None, typer.Option(help="write the instance file of --models, and place nothing")] = None,
    method: Annotated[str, typer.Option(help=" | ".join(_METHODS))] = "auto",
    compare: Annotated[str | None, typer.Option(help=_COMPARED)] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="PATH=VALUE,…: a plan for each, e.g. devices.pi5.mbps=10,50,100")
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="device to leave out, as after its loss; repeat")] = None,
    budget: Annotated[float | None, typer.Option(help="seconds a plan may take; default: 1 (auto), 60 (exact)")] = None,
    seed: Annotated[int, typer.Option(help="seed of random placements")] = 0,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV, a row for each plan and task")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw into this file: .svg, .png or .pdf")] = None,
    verbose: options.Verbose = False,
) -> None:
    """Place modules on devices, offline. `s2m3 plan home.json`.

    Methods beside each other, over the speed of a link, as CSV and as a figure:
    `s2m3 plan home.json --compare greedy,auto,random --sweep devices.pi5.mbps=10,50,100 --csv --plot mbps.svg`.

    Or models of which nothing is there yet, their sizes by their configurations:
    `s2m3 plan --models clip-vit-l14-336,llava-7b --devices devices.json --dtype bfloat16`.
    """
    logs.configure(verbose=verbose, quiet=True)
    if method not in _METHODS:
        raise BadInputError(f"--method is one of {', '.join(_METHODS)}, not {method!r}; --compare takes more")
    if (file is None) == (models is None) or (file is not None and (devices, source) != (None, None)):
        raise BadInputError("either an instance file, or --models and --devices (and --source)")
    if budget is not None and not budget >= 0:
        raise BadInputError(f"--budget {budget:g}: seconds, 0 or more")
    if as_json and as_csv:
        raise BadInputError("either --json or --csv")
    if file is not None:
        document, where = read_document(file), file.name
    else:
        own = own_architectures(CheckpointSettings.load(architectures=architectures).architectures)
        instance = _estimated(models or "", catalogue_of(definitions, own), devices, dtype=dtype, source=source)
        document, where = instance.model_dump(mode="json", exclude_none=True), "models on devices"
    if write is not None:
        _write(document, where, without or [], write)
        return
    wanted = _Wanted(
        methods=tuple(name.strip() for name in compare.split(",")) if compare is not None else (method,),
        sweeps=tuple(read_sweep(text) for text in sweep or ()),
        many=compare is not None or bool(sweep),
        budget_s=budget,
        seed=seed,
        form="json" if as_json else "csv" if as_csv else "table",
        plot=plot,
    )
    _place(document, where, without or [], wanted)


def _write(document: Mapping[str, Any], where: str, without: list[str], path: Path) -> None:
    instance = parse_instance(_left(document, where, without), where)
    try:
        path.write_text(instance.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--write: {error}") from error
    typer.echo(f"written to {path}; `s2m3 plan {path}` places it")


def _estimated(models: str, catalogue: Catalogue, devices: Path | None, *, dtype: str, source: str | None) -> Instance:
    """Returns the instance of models on devices described in a file."""
    from s2m3.planner.solving.estimate import assumed_devices, estimated_instance  # noqa: PLC0415  # as in _place

    if devices is None:
        raise BadInputError(f"--models needs --devices, a JSON file of what to place them on: {_DEVICES}")
    found = assumed_devices(read_json(devices), devices.name)
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise BadInputError("--models names none; `s2m3 split MODEL` says what one is made of")
    return estimated_instance(catalogue, names, found, dtype=dtype, source=source)


def _place(document: Mapping[str, Any], where: str, without: list[str], wanted: _Wanted) -> None:
    """Solves all cases, prints them and draws them; exits 3 where none fits."""
    from s2m3 import figures, plan_output  # noqa: PLC0415  # slow to import, and only this command needs them
    from s2m3.commands import plan_tables  # noqa: PLC0415

    if wanted.plot is not None:
        figures.check_suffix(wanted.plot)
    try:
        document = _left(document, where, without)
        found = list(_cases(document, where, wanted))
        if all(case.solution is None for case in found):
            raise found[0].error or NoCapacityError("nothing fits")
    except NoCapacityError as error:
        if wanted.form != "json":
            raise
        typer.echo(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
        sys.exit(_NO_CAPACITY)
    if wanted.plot is not None:
        plan_output.draw(found, wanted.plot, many=wanted.many)
        typer.echo(f"drawn into {wanted.plot}", err=True)
    if wanted.form == "csv":
        plan_output.write_csv(found, sys.stdout)
    elif wanted.form == "json":
        shown = {"cases": [case.to_json() for case in found]} if wanted.many else _one(found[0])
        typer.echo(json.dumps(shown, ensure_ascii=False))
    elif wanted.many:
        plan_tables.show_cases(found)
    else:
        plan_tables.show_plan(found[0])


def _left(document: Mapping[str, Any], where: str, without: list[str]) -> Mapping[str, Any]:
    """Returns the document of a valid instance, in which some devices are gone."""
    parse_instance(document, where)
    for device in without:
        document = without_device(document, device)
    return document


def _one(case: "Case") -> dict[str, Any]:
    """Returns a single plan as `--json` prints it: the solution alone."""
    ranked = case.ranked.to_json() if case.ranked is not None else {}
    return {**case.solution.to_json(), **ranked} if case.solution is not None else {}


def _cases(document: Mapping[str, Any], where: str, wanted: _Wanted) -> Iterator["Case"]:
    """Yields all cases; a terminal shows the progress of many."""
    from rich.console import Console  # noqa: PLC0415  # as in _place
    from rich.progress import track  # noqa: PLC0415

    from s2m3.planner.solving.compare import cases  # noqa: PLC0415

    found = cases(
        document, where, methods=wanted.methods, sweeps=wanted.sweeps, budget_s=wanted.budget_s, seed=wanted.seed
    )
    total = len(wanted.methods)
    for _, values in wanted.sweeps:
        total *= len(values)
    quiet = not wanted.many or not sys.stderr.isatty()
    yield from track(found, "plans", total=total, console=Console(stderr=True), transient=True, disable=quiet)
