"""The commands about bindings: bind a topic to a task, remove a binding, and list the bindings."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from s2m3.commands import options
from s2m3.commands.status import binding_table, site_document
from s2m3.commands.terminal import console
from s2m3.schemas import extras, topics
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError, S2M3Error, UnknownTaskError, error_from_code
from s2m3.schemas.ids import check_id
from s2m3.schemas.near_names import no_such
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.plain import plain_value
from s2m3.snapshot import Site

__all__ = ["bind", "list_bindings", "unbind"]

_ACTIVE_S = 10.0


@options.with_settings(BrokerSettings)
def bind(
    settings: BrokerSettings,
    source: Annotated[str, typer.Argument(help="topic filter; what + and # stand for is {1}, {2}, … in --publish")],
    task: Annotated[str, typer.Option("--task", help="the task to ask")],
    publish: Annotated[str, typer.Option("--publish", help="topic of the answers, with {task}, {binding}, {1}, …")],
    *,
    name: Annotated[str | None, typer.Option(help="name of the binding; default: made of task and source")] = None,
    whole: Annotated[
        str | None, typer.Option("--input", help="input of the task that takes the payload as it is")
    ] = None,
    content_type: Annotated[
        str | None, typer.Option(help="format of raw sound: 'audio/L16; rate=16000; channels=1'")
    ] = None,
    path: Annotated[
        list[str] | None, typer.Option("--path", help="INPUT=JMESPATH: input taken from a JSON payload; repeat")
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option("--set", help="INPUT=TEXT or INPUT=@FILE: an input that is always the same; repeat"),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="JMESPath that has to be true of a JSON payload, else it is passed over")
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="ask every message, in order: events, not pictures")] = False,
    every: Annotated[float | None, typer.Option(help="seconds between requests of a topic [1; 0 with --each]")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="publish only answers that are this label; repeat")
    ] = None,
    above: Annotated[float | None, typer.Option(help="publish only answers with a higher score")] = None,
    value: Annotated[
        bool, typer.Option("--value/--full", help="publish the answer alone, or all of it as JSON")
    ] = False,
    retain: Annotated[
        bool, typer.Option("--retain", help="publish retained: the broker keeps the last answer")
    ] = False,
) -> None:
    """Make a topic the input of a task. `s2m3 bind 'frigate/+/person/snapshot' --task porch --input image --publish 'home/{1}/caption'`."""  # noqa: E501  # the example is one line
    binding = _read_binding(
        source=source,
        task=task,
        input=whole,
        content_type=content_type,
        paths=dict(_pair(text, "--path") for text in path or []),
        inputs=_constants(constant or []),
        where=where,
        publish=publish,
        form="value" if value else "json",
        retain=retain,
        each=each,
        every_s=every if every is not None else 0.0 if each else 1.0,
        labels=label or [],
        above=above,
    )
    name = check_id(name or _name_of(task, source), "binding")
    with Site(settings) as site:
        _check(site, name, binding)
        site.reports.pop(name, None)
        site.publish(topics.BIND, binding.encode(), binding=name)
        _wait_until_active(site, name)
    typer.echo(f"{name}: {source} -> {task} -> {publish}")


def _read_binding(**fields: Any) -> Binding:
    """Returns a binding of these fields.

    Raises:
        BadInputError: A field's value is wrong; the text names the first one.
    """
    try:
        return Binding(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadInputError(
            f"{'.'.join(map(str, first['loc'])) or 'binding'}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def _check(site: Site, name: str, binding: Binding) -> None:
    """Checks a binding as the bridge does, before it is published.

    Raises:
        BadInputError: A topic or a path is wrong, or answers would return to the binding.
        UnknownTaskError: There is no such task, or it does not take the input.
        NotInstalledError: The package for paths is not installed.
    """
    extras.require("bridge", "a binding")
    from s2m3.bindings.extract import Extract  # noqa: PLC0415  # only who binds has JMESPath
    from s2m3.bindings.pattern import check_topics, loops  # noqa: PLC0415  # with the above

    check_topics(binding, site.root)
    Extract(binding)
    if way := loops({**site.bindings, name: binding}).get(name):
        raise BadInputError(f"its answers would come back to it: {' -> '.join(way)}")
    if binding.task not in site.tasks:
        raise UnknownTaskError(no_such("task", binding.task, site.tasks))
    doc = site.routes.get(binding.task)
    given = {*([binding.input] if binding.input else []), *binding.paths, *binding.inputs}
    if doc is not None and doc.inputs:
        if unknown := given - doc.inputs.keys():
            raise BadInputError(
                f"{binding.task} has no input {min(unknown)!r}; it takes {', '.join(sorted(doc.inputs))}"
            )
        if missing := doc.inputs.keys() - given - doc.defaults.keys():
            raise BadInputError(f"{binding.task} takes {min(missing)!r} too: --set {min(missing)}=…")
        if binding.above is not None and "score" not in doc.answer:
            raise BadInputError(f"the answers of {binding.task} have no score that could be above {binding.above:g}")


def _wait_until_active(site: Site, name: str) -> None:
    if site.bridge is None or site.bridge.state != "online":
        typer.echo("no bridge runs yet, it will be active with the next: s2m3 bridge", err=True)
        return
    if not site.wait(lambda s: name in s.reports, _ACTIVE_S):
        raise S2M3Error(f"the bridge did not take {name} up in {_ACTIVE_S:g} s; see `s2m3 bindings`")
    error = site.reports[name].error
    if error is not None:
        raise error_from_code(error.code, error.detail)


@options.with_settings(BrokerSettings)
def unbind(settings: BrokerSettings, name: Annotated[str, typer.Argument(help="name of the binding")]) -> None:
    """Remove a binding. `s2m3 unbind porch-frigate-person-snapshot`."""
    with Site(settings) as site:
        if name not in site.bindings:
            raise BadInputError(no_such("binding", name, site.bindings))
        site.publish(topics.BIND, b"", binding=name)
    typer.echo(f"{name} is removed")


@options.with_settings(BrokerSettings)
def list_bindings(settings: BrokerSettings, *, as_json: options.Json = False) -> None:
    """List the bindings, and what became of each. `s2m3 bindings`."""
    with Site(settings) as site:
        if as_json:
            typer.echo(json.dumps(site_document(site)["bindings"], ensure_ascii=False))
        else:
            console().print(binding_table(site))


def _name_of(task: str, source: str) -> str:
    return "-".join(filter(None, (task, re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-"))))[:64].strip("-")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise BadInputError(f"{option} takes NAME=VALUE, not {text!r}")
    return name, value


def _constants(given: list[str]) -> dict[str, Any]:
    """Returns input name -> value: several values of one input make a list; @FILE is a file's bytes."""
    found: dict[str, list[Any]] = {}
    for name, text in (_pair(item, "--set") for item in given):
        found.setdefault(name, []).append(
            plain_value(options.read_file(Path(text[1:]))) if text.startswith("@") else text
        )
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
