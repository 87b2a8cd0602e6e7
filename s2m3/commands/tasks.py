"""The commands for tasks: `task add`, `task rm`, `task ls`."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s2m3.commands import options, task_options
from s2m3.commands.fetched import fetches_of
from s2m3.commands.module_options import check_task_prompt, with_options
from s2m3.commands.previews import say_preview
from s2m3.commands.stand_ins import check_stand_ins, refused_model, stand_ins_of
from s2m3.commands.status import unanswered
from s2m3.commands.terminal import Listing, console
from s2m3.ranks import answering
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.architectures import Architecture, architecture_of
from s2m3.schemas.checkpoints.deriving import definition_of
from s2m3.schemas.checkpoints.headers import read_checkpoint, read_settings
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.checkpoints.servable import check_servable, not_followed
from s2m3.schemas.checkpoints.servable_pipelines import not_run
from s2m3.schemas.definitions import Definition, is_hub_id
from s2m3.schemas.dtypes import read_dtype
from s2m3.schemas.errors import BadInputError, NotReadyError, S2M3Error, UnknownTaskError, error_from_code
from s2m3.schemas.ids import check_id
from s2m3.schemas.near_names import no_such
from s2m3.schemas.settings import BrokerSettings, CheckpointSettings
from s2m3.schemas.wire.plain import plain_inputs
from s2m3.snapshot import Site

__all__ = ["add", "add_task", "app", "checkpoint_definition", "list_tasks", "remove", "with_options"]

app = typer.Typer(help="Tasks: named, running uses of a model.", no_args_is_help=True)

_READY_S = 60.0
#: Longest wait for the gateway of a task, which follows when clients can already ask the task, seconds.
_GATEWAY_S = 5.0
#: Interval at which the progress of a task that is not ready is printed, seconds.
_SHOWN_S = 0.5


@app.command("add")
@options.with_settings(CheckpointSettings, architectures=options.Architectures)
def add(
    settings: CheckpointSettings,
    name: task_options.Name,
    model: task_options.Model,
    *,
    or_: task_options.OrModels = None,
    or_input: task_options.OrInputs = None,
    text: task_options.Texts = None,
    image: task_options.Pictures = None,
    source: task_options.Source = None,
    dtype: task_options.Dtype = None,
    use: task_options.Use = None,
    option: task_options.PartOptions = None,
    max_tokens: options.MaxTokens = None,
    stop: options.StopTexts = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    threshold: options.Threshold = None,
    tolerance: options.Tolerance = 0.0,
    share: task_options.Share = True,
    prefer: task_options.Prefer = None,
    replicas: task_options.Replicas = 1,
    map_weights: task_options.MapWeights = False,
    deadline: task_options.Deadline = 30.0,
    wait: task_options.Wait = True,
    dry_run: task_options.DryRun = False,
) -> None:
    """Add a task, or change it. `s2m3 task add porch --model retrieval --text "a cat" --text "a person"`.

    A local checkpoint is served by its folder: `s2m3 task add pets --model ./clip-vit-base-patch16`. A task that cannot
    be asked is taken back; `--no-wait` adds it whether or not it can be asked yet.

    With stand-ins it always answers: `s2m3 task add porch --model ./gemma-3-4b --or ./blip-vqa --or captioning`.
    """
    own = own_architectures(settings.architectures)
    definition = with_options(checkpoint_definition(model, source, dtype, own, use), option or [])
    _check_folder(model, definition, own, use)
    further = {other: _stand_in_definition(other, own) for other in or_ or ()}
    spec = m.TaskSpec(
        model=definition.model.id if definition else model,
        definition=definition,
        inputs=_defaults(text, image),
        options=options.how_to_write(max_tokens, stop, temperature, seed),
        max_replicas=replicas,
        deadline_s=deadline,
        threshold=threshold,
        tolerance=tolerance,
        map_weights=map_weights,
        prefer=[check_id(node.strip(), "node") for node in prefer.split(",")] if prefer else [],
        stand_ins=stand_ins_of(further, options.named_texts(or_input or [], "--or-input")),
    )
    check_stand_ins(name, spec)
    with Site(settings) as site:
        if share:
            spec = _with_parts_shared(site, name, spec, [Path(model), *map(Path, further)], own)
        if dry_run:
            say_preview(site, name, spec)
        else:
            _add_to(site, name, spec, wait=wait)


def _stand_in_definition(model: str, own: Sequence[Architecture]) -> Definition | None:
    """Returns the definition of a stand-in's checkpoint, checked; None if the model is given by its id."""
    definition = checkpoint_definition(model, None, None, own)
    _check_folder(model, definition, own, None)
    return definition


def _check_folder(model: str, definition: Definition | None, own: Sequence[Architecture], use: str | None) -> None:
    """Checks a checkpoint's prompt, and says which of its settings are not followed."""
    if definition is not None:
        check_task_prompt(Path(model), definition)
        _say_not_followed(Path(model), own, use)


def _with_parts_shared(
    site: Site, name: str, spec: m.TaskSpec, folders: Sequence[Path], own: Sequence[Architecture]
) -> m.TaskSpec:
    """Returns a task with the parts that the site's other tasks hold, in the definitions of its checkpoints."""
    found = [
        one.definition and _sharing(site, name, one.definition, folder, own)
        for one, folder in zip(spec.ranks, folders, strict=True)
    ]
    stand_ins = [
        one.model_copy(update={"definition": definition})
        for one, definition in zip(spec.stand_ins, found[1:], strict=True)
    ]
    return spec.model_copy(update={"definition": found[0], "stand_ins": stand_ins})


def _add_to(site: Site, name: str, spec: m.TaskSpec, *, wait: bool) -> None:
    """Adds a task to a site; with `wait` until the task can be asked, else it is taken back."""
    before, stale = site.tasks.get(name), _stale_route(site, name, spec)
    try:
        add_task(site, name, spec)
        if wait:
            _wait_or_take_back(site, name, before, stale)
    except KeyboardInterrupt:
        stays = f"{name} stays added and is served once it is ready; take it back: s2m3 task rm {name}"
        sys.stderr.write(f"s2m3: {stays}\n")
        raise


def checkpoint_definition(
    model: str,
    source: str | None,
    dtype: str | None = None,
    own: Sequence[Architecture] = (),
    use: str | None = None,
) -> Definition | None:
    """Returns the definition of a checkpoint's folder; None if the model is given by its id.

    Args:
        model: The id of a model, or the folder of a checkpoint.
        source: The source that its modules name; None for the folder's path.
        dtype: The dtype of its weights; None for each agent's setting.
        own: Architectures that it may have besides the shipped ones.
        use: The use of the model; None for the use that its folder states.

    Raises:
        BadInputError: The folder does not exist or has no checkpoint that can be served (UnsupportedCheckpointError),
            it has no such use, or a dtype or use is given for a model that a file defines.
    """
    folder = Path(model)
    if not folder.is_dir() and is_hub_id(model):
        raise BadInputError(f"{model} is no folder here; what is on the hub is served by a definition (`s2m3 models`)")
    if not folder.is_dir() and not {"/", "\\", "."} & set(model):
        if dtype is not None:
            raise BadInputError(f"--dtype is for a checkpoint's folder; {model} has the dtype that its definition says")
        if use is not None:
            raise BadInputError(f"--use is for a checkpoint's folder; {model} is used as its definition says")
        return None
    held_in, checkpoint = read_dtype(dtype) if dtype is not None else None, read_checkpoint(folder)
    check_servable(checkpoint, architecture_of(checkpoint.config, own, use))
    return definition_of(checkpoint, source or str(folder.resolve()), dtype=held_in, own=own, use=use)


def _defaults(texts: Sequence[str] | None, pictures: Sequence[Path] | None) -> dict[str, Any]:
    """Returns the default inputs of a task as its document has them."""
    given: dict[str, list[Any]] = {"text": [*(texts or ())], "image": [*map(options.read_file, pictures or ())]}
    return plain_inputs({name: found if len(found) > 1 else found[0] for name, found in given.items() if found})


def _sharing(site: Site, task: str, definition: Definition, folder: Path, own: Sequence[Architecture]) -> Definition:
    """Returns a checkpoint's definition with the parts that the site's other tasks hold, and prints these."""
    from s2m3.commands.sharing import say_shared, served_later, shared_with  # noqa: PLC0415  # numpy, and more where it reads

    others = {name: other for name, other in site.tasks.items() if name != task}
    with Console(stderr=True).status("comparing weights"):
        found, shared = shared_with(definition, folder, others, own)
        later = served_later(found, folder, others, own)
    say_shared(site, shared)
    for other, part in later:
        typer.echo(f"{part} can serve {other} too: add {other} once more (`s2m3 task add`), and one copy is held")
    return found


def _say_not_followed(folder: Path, own: Sequence[Architecture], use: str | None) -> None:
    checkpoint = read_settings(folder)
    if component := not_run(checkpoint):
        sys.stderr.write(f"s2m3: {folder.name} has a {component}, which is not run: no picture is held back\n")
    if settings := not_followed(checkpoint, architecture_of(checkpoint.config, own, use)):
        sys.stderr.write(f"s2m3: {folder.name} says {', '.join(settings)}, which is not followed: texts may differ\n")


def add_task(site: Site, name: str, spec: m.TaskSpec) -> None:
    """Publishes a desired task."""
    check_id(name, "task")
    site.publish(topics.TASK, spec.encode(), task=name)


def _wait_or_take_back(site: Site, name: str, before: m.TaskSpec | None, stale: m.RouteDoc | None) -> None:
    """Waits until a task can serve requests; if it cannot, takes it back and raises the reason."""
    try:
        _wait_until_ready(site, name, stale)
    except S2M3Error as error:
        error.detail += _taken_back(site, name, before)
        raise


def _taken_back(site: Site, name: str, before: m.TaskSpec | None) -> str:
    """Removes a task that cannot be asked, or makes it what it was before; returns the words for the error's text."""
    try:
        site.publish(topics.TASK, before.encode() if before is not None else b"", task=name)
    except S2M3Error as error:
        return f"; {name} could not be taken back ({error.detail}) and stays added: s2m3 task rm {name}"
    return f"; {name} is what it was before" if before is not None else f"; {name} is taken back, nothing of it stays"


def _stale_route(site: Site, name: str, spec: m.TaskSpec) -> m.RouteDoc | None:
    """Returns the route document of an earlier task of this name with another model; None if there is none."""
    before = site.tasks.get(name)
    models = [[(one.model, one.definition) for one in task.ranks] for task in (before, spec) if task is not None]
    alike = before is not None and models[0] == models[1]
    return None if alike else site.routes.get(name)


def _wait_until_ready(site: Site, name: str, stale: m.RouteDoc | None) -> None:
    """Waits until a task can serve requests, and prints where its modules are.

    Args:
        site: The site to which it was added.
        name: The task's name.
        stale: The route document of an earlier task of this name, which does not count.

    Raises:
        NoCapacityError: The modules do not fit.
        NotReadyError: The task is not ready in time; the text says what is missing.
    """

    def is_settled(seen: Site) -> bool:
        doc = seen.routes.get(name)
        if doc is None or doc is stale or doc.error is not None or refused_model(doc) is not None:
            return doc is not None and doc is not stale
        wanted = next((one.rank for one in doc.by_rank if one.error is None), 0)  # the best that the planner places
        return (rank := seen.rank(name)) is not None and rank <= wanted

    with Console(stderr=True).status(f"placing {name}") as shown:
        deadline, settled = time.monotonic() + _READY_S, False
        while not settled and time.monotonic() < deadline:
            settled = site.wait(is_settled, min(_SHOWN_S, max(0.0, deadline - time.monotonic())))
            shown.update("; ".join([f"placing {name}", *fetches_of(site, _modules_of(site, name))]))
            if site.link.connected and _is_loading(site, name):
                deadline = time.monotonic() + _READY_S
    doc, refusal = site.routes.get(name), _error_of(site, name)
    if doc is not None and doc is not stale and (refused := refused_model(doc)) is not None:
        raise refused
    if refusal is not None and not site.ready(name):
        raise error_from_code(refusal.code, refusal.detail)
    if not settled and not site.ready(name):
        planner = site.planner.state if site.planner else "not there"
        raise NotReadyError(f"{name} is not ready after {_READY_S:g} s (planner: {planner}); see `s2m3 status`")
    site.wait(lambda seen: seen.answers(name), _GATEWAY_S)  # its session is opened first; a full site has no gateway
    used = site.routes[name].by_rank[site.rank(name) or 0]
    nodes = {step: [r.node for r in found.replicas] for step, found in used.steps.items()}
    stand_in = f", with {used.model}, a stand-in" if used.rank else ""
    where = ", ".join(f"{step} on {'/'.join(held)}" for step, held in nodes.items())
    typer.echo(f"{name} is ready{stand_in}: {where}")
    if (why := unanswered(site, name)) is not None:
        typer.echo(f"{name}: {why}", err=True)


def _is_loading(site: Site, name: str) -> bool:
    """Whether a present node is loading one of the task's modules; a large one from a slow disk takes minutes."""
    wanted = _modules_of(site, name)
    reported = [site.reported[node].modules for node in site.nodes.present if node in site.reported]
    return any(report.state == "loading" for modules in reported for key, report in modules.items() if key in wanted)


def _modules_of(site: Site, name: str) -> set[str]:
    doc = site.routes.get(name)
    return {step.module for one in doc.by_rank for step in one.steps.values()} if doc else set()


def _error_of(site: Site, name: str) -> m.ErrorBody | None:
    doc = site.routes.get(name)
    return doc.error if doc else None


@app.command("rm")
@options.with_settings(BrokerSettings)
def remove(
    settings: BrokerSettings,
    name: Annotated[str, typer.Argument(help="name of the task")],
) -> None:
    """Remove a task; modules that no other task uses are unloaded. `s2m3 task rm porch`."""
    with Site(settings) as site:
        if name not in site.tasks:
            raise UnknownTaskError(no_such("task", name, site.tasks))
        site.publish(topics.TASK, b"", task=name)
    typer.echo(f"{name} is removed")


@app.command("ls")
@options.with_settings(BrokerSettings)
def list_tasks(settings: BrokerSettings, *, as_json: options.Json = False) -> None:
    """List the tasks and whether they can be asked. `s2m3 task ls`."""
    with Site(settings) as site, site.still():
        rows = [(name, site.tasks[name].model, _state_of(site, name)) for name in sorted(site.tasks)]
    if as_json:
        typer.echo(json.dumps([{"task": task, "model": model, "state": state} for task, model, state in rows]))
        return
    table = Listing("task", "model", "state")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _state_of(site: Site, name: str) -> str:
    refusal = _error_of(site, name)
    if site.ready(name):
        if not site.answers(name):
            return "ready, no gateway"
        return f"ready, with a stand-in: {answering(site, name)}" if site.rank(name) else "ready"
    return f"{refusal.code}: {refusal.detail}" if refusal else "not ready"
