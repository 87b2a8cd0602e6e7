"""The command `split`: the parts of checkpoints, and the savings of sharing. One checkpoint takes its headers alone."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from s2m3.commands import options
from s2m3.commands.named_models import distances_of, read_source, unservable, with_content_compared
from s2m3.commands.terminal import Listing, console
from s2m3.planner.catalogue import catalogue_of
from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.checkpoints.parts import DTYPES, Model, PartSize, Saving, peak_saving, total_saving
from s2m3.schemas.definitions import Catalogue
from s2m3.schemas.dtypes import read_dtype
from s2m3.schemas.settings import BrokerSettings, CheckpointSettings
from s2m3.snapshot import Site

__all__ = ["split"]

_FEW = 10_000
#: Identity of a part -> names of the known models, or of the tasks on the bus, that use it.
_Users = dict[str, set[str]]


@options.with_settings(CheckpointSettings, architectures=options.Architectures)
def split(
    settings: CheckpointSettings,
    sources: Annotated[list[str], typer.Argument(help="folder of a checkpoint, hub id in the local cache, or a model")],
    *,
    dtype: Annotated[str, typer.Option(help=f"dtype of the weights in memory: {', '.join(DTYPES)}")] = "float32",
    folder: Annotated[
        Path | None, typer.Option("--models", help="folder of further model definitions (*.toml)")
    ] = None,
    served: Annotated[bool, typer.Option("--served", help="say which tasks on the bus use the parts")] = False,
    content: Annotated[
        bool, typer.Option("--content/--no-content", help="compare the weights of parts that may be equal; reads them")
    ] = True,
    check: Annotated[
        bool, typer.Option("--check", help="load the parts, and compare outputs in other dtypes with fp32")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say what checkpoints are made of and what sharing saves. `s2m3 split ./my-clip clip-vit-l14-336 llava-7b`.

    Sizes are those of the headers or, of a model without files here, those that follow from its configuration.
    """
    dtype = read_dtype(dtype)
    own = own_architectures(settings.architectures)
    catalogue = catalogue_of(folder, own)
    models = [read_source(source, catalogue, own) for source in sources]
    for model in models:
        if (why := unservable(model, own)) is not None:
            sys.stderr.write(f"s2m3: {model.name} cannot be served as it is: it {why}\n")
    can_compare = find_spec("transformers") is not None and sum(model.folder is not None for model in models) > 1
    if content and can_compare:
        with Console(stderr=True).status("comparing weights"):
            models = with_content_compared(models, own)
    users = _known_users(catalogue)
    if served:
        users = _merged(users, _tasks(settings, catalogue))
    document = _document(models, users, dtype)
    if check:
        for model, row in zip(models, document["models"], strict=True):
            with Console(stderr=True).status(f"running {model.name}"):
                row["distances"] = _distances(model, own)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    else:
        _show(models, document, dtype)


def _known_users(catalogue: Catalogue) -> _Users:
    users: _Users = {}
    for model in catalogue.models.values():
        for module_id in model.module_ids:
            users.setdefault(module_id, set()).add(f"model {model.id}")
    return users


def _tasks(settings: BrokerSettings, catalogue: Catalogue) -> _Users:
    """Returns the tasks on the bus by the parts that they use: known modules, or parts of the folders they name."""
    users: _Users = {}
    with Site(settings) as site:
        for task, spec in site.tasks.items():
            if spec.definition is not None:
                used: Iterable[str] = (f"{module.source}#{module.prefix}" for module in spec.definition.modules)
            elif spec.model in catalogue.models:
                used = catalogue.models[spec.model].module_ids
            else:
                continue
            for identity in used:
                users.setdefault(identity, set()).add(f"task {task}")
    return users


def _merged(one: _Users, other: _Users) -> _Users:
    return {name: one.get(name, set()) | other.get(name, set()) for name in one.keys() | other.keys()}


def _document(models: Sequence[Model], users: _Users, dtype: str) -> dict[str, Any]:
    """Returns what `--json` prints; savings are given per model (`peak`, one device) and for all models (`total`)."""
    named: _Users = {}
    for model in models:
        for part in model.parts:
            named.setdefault(part.identity, set()).add(model.name)
    found: dict[str, Any] = {"dtype": dtype, "models": [_model(model, users, named, dtype) for model in models]}
    if len(models) > 1:
        total = total_saving(models, dtype)
        found["total"] = {"separate_bytes": total.before, "shared_bytes": total.after, "saved": round(total.saved, 4)}
    return found


def _model(model: Model, users: _Users, named: _Users, dtype: str) -> dict[str, Any]:
    peak = peak_saving(model, dtype)
    return {
        "name": model.name,
        "description": model.description,
        "parts": [_part(part, model.name, users, named) for part in model.parts],
        "peak": {"whole_bytes": peak.before, "largest_part_bytes": peak.after, "saved": round(peak.saved, 4)},
    }


def _part(part: PartSize, model: str, users: _Users, named: _Users) -> dict[str, Any]:
    others = users.get(part.identity, set()) - {f"model {model}"}
    others |= {name for name in named[part.identity] if name != model and f"model {name}" not in others}
    return {
        "name": part.name,
        "identity": part.identity,
        "role": part.role,
        "parameters": part.parameters,
        "lookup_parameters": part.lookup,
        "linear_parameters": part.linear,
        "on_disk_bytes": part.on_disk,
        "bytes": {dtype: part.nbytes(dtype) for dtype in DTYPES},
        "gflops": None if part.gflops is None else round(part.gflops, 4),
        "passes": {
            name: {"shape": list(shape), "bytes": part.passed_bytes(name)} for name, shape in part.passes.items()
        },
        "shared_with": sorted(others),
    }


def _distances(model: Model, own: Sequence[Architecture]) -> dict[str, Any]:
    """Returns part -> dtype -> output -> cosine, max_abs (None for texts) and same."""
    return {
        part: {dtype: {name: asdict(found) for name, found in outputs.items()} for dtype, outputs in dtypes.items()}
        for part, dtypes in distances_of(model, own).items()
    }


def _show(models: Sequence[Model], document: dict[str, Any], dtype: str) -> None:
    screen = console()
    for model, row in zip(models, document["models"], strict=True):
        screen.print(Text.assemble("\n", (model.name, "bold"), f"  {model.description}"))
        screen.print(_table(model, dtype))
        if "distances" in row:
            screen.print(_distance_table(row["distances"]))
        for part in row["parts"]:
            if part["shared_with"]:
                screen.print(f"{part['name']} is shared with {', '.join(part['shared_with'])}")
        peak = peak_saving(model, dtype)
        screen.print(f"one device's peak: whole {_mb(peak.before)}, largest part {_mb(peak.after)}{_less(peak)}")
    if len(models) > 1:
        total = total_saving(models, dtype)
        screen.print(
            f"\nall {len(models)} models together, over all devices: a copy of each part for each model "
            f"{_mb(total.before)}, each distinct part once {_mb(total.after)}{_less(total)}"
        )


def _table(model: Model, dtype: str) -> Listing:
    disk = model.folder is not None
    table = Listing("part", "numbers", *(["on disk"] if disk else []), dtype, "GFLOPs", "passes on")
    for part in model.parts:
        passes = "\n".join(f"{name} {_kb(part.passed_bytes(name))}" for name in part.passes)
        cells = [part.name, _count(part.parameters), *([_mb(part.on_disk or 0)] if disk else [])]
        cells += [_mb(part.nbytes(dtype)), "?" if part.gflops is None else f"{part.gflops:,.1f}", passes or "-"]
        table.add_row(*cells)
    return table


def _distance_table(distances: dict[str, Any]) -> Listing:
    """Returns the table of differences from float32: the smallest cosine of an item, or the share of equal texts."""
    others = list(DTYPES)[1:]
    table = Listing("part", "output", *others, title="cosine with float32")
    for part, dtypes in distances.items():
        for name in dtypes[others[0]]:
            table.add_row(part, name, *(_distance(dtypes[dtype][name]) for dtype in others))
    return table


def _distance(found: dict[str, Any]) -> str:
    return f"{found['same']:.0%} same" if found["cosine"] is None else f"{found['cosine']:.5f}"


def _less(saving: Saving) -> str:
    return f": {saving.saved:.1%} less"


def _count(numbers: int) -> str:
    return f"{numbers / 1e6:,.2f} M" if numbers >= _FEW else str(numbers)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"


def _kb(nbytes: int) -> str:
    return f"{nbytes / 1e3:,.1f} kB"
