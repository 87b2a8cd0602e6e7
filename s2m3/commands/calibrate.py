"""The command `calibrate`: asks a task about the user's own pictures, and keeps the threshold that they give."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s2m3.calibration import Calibration, Example, rate_at_most
from s2m3.calibration import calibrate as calibrated
from s2m3.client import Answer, Client
from s2m3.commands import options
from s2m3.commands.tasks import add_task
from s2m3.schemas.errors import BadInputError, NotReadyError, UnknownTaskError
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.near_names import no_such
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site

__all__ = ["calibrate"]

_READY_S, _TAKEN_S = 30.0, 15.0
#: Files that are asked about at once, and most of one folder.
_AT_ONCE, _MOST = 4, 1_000
#: Balanced error from which on a threshold is not kept: half as bad as chance.
_USELESS = 0.25


@dataclass(frozen=True, slots=True)
class _Asked:
    """A file of a folder, and the labels of its answer with their scores, best first."""

    folder: str
    ranking: tuple[tuple[str, float], ...]


@options.with_settings(BrokerSettings)
def calibrate(
    settings: BrokerSettings,
    task: Annotated[str, typer.Argument(help="name of the task")],
    folders: Annotated[
        list[Path], typer.Option("--folder", help="folder of example files, named as their label; repeat for several")
    ],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be kept, and keep nothing")] = False,
    as_json: options.Json = False,
) -> None:
    """Find a task's threshold: below this score, the answer is none of these.

    `s2m3 calibrate porch --folder parcel --folder day`

    A folder that is named as one of the task's labels (parcel for "a parcel") holds examples of it, every other folder
    (an ordinary day) what the task should not answer. At least six of each kind, better thirty. A third is held back,
    and the error is stated on these. The threshold becomes part of the task.
    """
    folders = [folder.resolve() for folder in folders]
    files = {folder: _files(folder) for folder in folders}
    with Site(settings) as site:
        doc = _route_of(site, task)
        asked = _ask_all(settings, task, _input_of(doc), files)
        labels = _labels_of(folders, doc, asked)
        found = calibrated([_example(one, labels[one.folder]) for one in asked])
        useful = found.held_back.balanced <= _USELESS
        if useful and not dry_run:
            _keep(site, task, round(found.threshold, 6))
    if as_json:
        typer.echo(json.dumps(_as_json(found, labels, kept=useful and not dry_run)))
    else:
        typer.echo(_as_text(found, labels))
    if not useful:
        raise BadInputError(
            f"nothing is kept: {task} cannot tell these apart by its scores (error {found.held_back.balanced:.0%})"
        )
    if not as_json:
        typer.echo(f"not kept (--dry-run): {task}" if dry_run else f"kept with the task {task}")


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadInputError(f"there is no folder {folder}")
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found or len(found) > _MOST:
        raise BadInputError(f"{folder} holds {len(found)} files; 1 to {_MOST} are taken")
    return found


def _route_of(site: Site, task: str) -> RouteDoc:
    if task not in site.tasks:
        raise UnknownTaskError(no_such("task", task, site.tasks))
    if not site.wait(lambda s: s.ready(task), _READY_S):
        raise NotReadyError(f"{task} is not ready after {_READY_S:g} s; see `s2m3 status`")
    return site.routes[task]


def _input_of(doc: RouteDoc) -> str:
    """Returns the name of the input that the files are for: the picture or sound that has no default."""
    files = {name for name, kind in doc.inputs.items() if kind in ("image", "images", "audio")}
    names = sorted(files - doc.defaults.keys())
    if len(names) != 1:
        raise BadInputError("calibrate is for tasks that take one picture or sound")
    return names[0]


def _ask_all(settings: BrokerSettings, task: str, name: str, files: Mapping[Path, Sequence[Path]]) -> list[_Asked]:
    """Asks about every file, a few at a time, in order."""
    every = [(folder, path) for folder, paths in files.items() for path in paths]
    asked: list[_Asked] = []
    with Client(settings=settings) as client, Console(stderr=True).status("") as status:
        for start in range(0, len(every), _AT_ONCE):
            status.update(f"asked {start} of {len(every)}")
            some = every[start : start + _AT_ONCE]
            inputs: list[dict[str, Any]] = [{name: path} for _, path in some]
            replies = [client.submit(task, **given) for given in inputs]
            asked += [
                _Asked(folder.name, _ranking(path, reply.result()))
                for (folder, path), reply in zip(some, replies, strict=True)
            ]
    return asked


def _ranking(path: Path, answer: Answer) -> tuple[tuple[str, float], ...]:
    """Returns the labels with their scores, regardless of the task's present threshold; empty without any."""
    ranking: Any = answer.outputs.get("ranking")
    if not isinstance(ranking, list):
        raise BadInputError(f"{path.name}: the task's answers have no ranking of labels with scores")
    return tuple((row["label"], float(row["score"])) for row in ranking if isinstance(row.get("label"), str))


def _labels_of(folders: Iterable[Path], doc: RouteDoc, asked: Iterable[_Asked]) -> dict[str, str | None]:
    """Returns folder name -> the label of that name; None where no label is named so."""
    texts = doc.defaults.get("text", [])
    known = [texts] if isinstance(texts, str) else list(texts)
    known += [label for one in asked for label, _ in one.ranking]
    named = {_plain(label): label for label in reversed(known)}
    labels = {folder.name: named.get(_plain(folder.name)) for folder in folders}
    if not any(labels.values()):
        some = ", ".join(list(dict.fromkeys(known))[:10])
        raise BadInputError(f"no folder is named as a label of the task; labels are {some}")
    return labels


def _plain(name: str) -> str:
    """Returns a label or a folder's name without case, article, dashes and underscores."""
    return re.sub(r"^(a|an|the) ", "", re.sub(r"[\s_-]+", " ", name.lower()).strip())


def _example(one: _Asked, label: str | None) -> Example:
    answer, score = one.ranking[0] if one.ranking else ("", 0.0)
    return Example(label, answer, score)


def _keep(site: Site, task: str, threshold: float) -> None:
    """Makes a threshold part of the task, and waits until requesters have it."""
    add_task(site, task, site.tasks[task].model_copy(update={"threshold": threshold}))
    if not site.wait(lambda s: task in s.routes and s.routes[task].threshold == threshold, _TAKEN_S):
        raise NotReadyError(f"the planner has not taken the threshold of {task}: is it there, and of this release?")


def _as_json(found: Calibration, labels: Mapping[str, str | None], *, kept: bool) -> dict[str, Any]:
    held = found.held_back
    return {
        "threshold": round(found.threshold, 6),
        "kept": kept,
        "folders": dict(labels),
        "error": round(held.balanced, 4),
        "held_back": {
            "none": held.none,
            "answered": held.answered,
            "answered_at_most": round(rate_at_most(held.answered, held.none), 4),
            "labelled": held.labelled,
            "missed": held.missed,
            "missed_at_most": round(rate_at_most(held.missed, held.labelled), 4),
        },
    }


def _as_text(found: Calibration, labels: Mapping[str, str | None]) -> str:
    held = found.held_back
    said = [f"{folder}: {f'examples of {label!r}' if label else 'none of these'}" for folder, label in labels.items()]
    return "\n".join(
        [
            *said,
            f"threshold {found.threshold:.4f}: below this score the answer is none of these",
            "on examples held back:",
            f"  {held.answered} of {held.none} of none of these were answered{_bound(held.answered, held.none)}",
            f"  {held.missed} of {held.labelled} of a label were missed or wrong{_bound(held.missed, held.labelled)}",
        ]
    )


def _bound(errors: int, of: int) -> str:
    return f" (so few examples allow up to {rate_at_most(errors, of):.0%})"
