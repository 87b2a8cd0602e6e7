"""Parses the command line of `s2m3`, prints errors in one line, sets the exit code. The work is elsewhere."""

import gc
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from s2m3.schemas.errors import BadInputError, NoCapacityError, S2M3Error, TooLargeError, UnknownTaskError

if TYPE_CHECKING:
    from s2m3.agents.supervision.context import ProcessContext

__all__ = ["command_line", "exit_code", "run"]

_FAILED, _USAGE, _NO_CAPACITY, _INTERRUPTED = 1, 2, 3, 130
#: Each command: its module in s2m3.commands, and its function there. In the order of `--help`.
_COMMANDS = {
    "demo": ("local", "demo"),
    "up": ("local", "up"),
    "weights": ("weights", "weights"),
    "ask": ("ask", "ask"),
    "status": ("status", "status"),
    "watch": ("watch", "watch"),
    "dashboard": ("dashboard", "dashboard"),
    "calibrate": ("calibrate", "calibrate"),
    "models": ("models", "models"),
    "broker": ("services", "broker"),
    "planner": ("services", "planner"),
    "agent": ("agent", "agent"),
    "bridge": ("services", "bridge"),
    "serve": ("serve", "serve"),
    "bind": ("bind", "bind"),
    "unbind": ("bind", "unbind"),
    "bindings": ("bind", "list_bindings"),
    "drain": ("drain", "drain"),
    "forget": ("services", "forget"),
    "replan": ("services", "replan"),
    "uninstall": ("uninstall", "uninstall"),
    "plan": ("plan", "plan"),
    "churn": ("churn", "churn"),
    "split": ("split", "split"),
}
#: Each group of commands: its module in s2m3.commands, which has it as `app`.
_GROUPS = {"task": "tasks", "history": "history", "node": "nodes", "secure": "secure"}


def command_line(names: Iterable[str] = (*_COMMANDS, *_GROUPS)) -> typer.Typer:
    """Returns the command line with some commands, or all; only their modules are imported."""
    app = typer.Typer(
        help="Split-and-share multi-modal models on the devices you own, over MQTT.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name in names:
        if name in _GROUPS:
            app.add_typer(import_module(f"s2m3.commands.{_GROUPS[name]}").app, name=name)
        else:
            module, function = _COMMANDS[name]
            app.command(name)(getattr(import_module(f"s2m3.commands.{module}"), function))
    return app


def _print_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"s2m3 {version('s2m3')}")
        raise typer.Exit


def _options(
    *,
    shown: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda asked: _print_version(asked=asked), is_eager=True, help="print it, and end"
        ),
    ] = False,
) -> None:
    """Options before the command's name."""


def run(named: str, context: "ProcessContext | None" = None) -> None:
    """Runs the command of `sys.argv`.

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 modules do not fit on the nodes, 130 an interrupt (Ctrl-C).

    Args:
        named: The first word that is no option: only this command's code is imported.
        context: The process context of an agent under a supervisor; commands find it in typer's context, as `obj`.
    """
    try:
        gc.disable()  # most objects of imports stay: to search them for garbage costs a tenth of a command's start
        app = command_line([named] if named in {*_COMMANDS, *_GROUPS} else {**_COMMANDS, **_GROUPS})
        gc.freeze()
        gc.enable()
        app(obj=context)
    except S2M3Error as error:
        if "--verbose" in sys.argv or "-v" in sys.argv:
            raise
        sys.stderr.write(f"s2m3: {error}\n")
        sys.exit(exit_code(error))
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        _end_interrupted()
    except BrokenPipeError:  # `s2m3 status | head`
        sys.stderr.close()
        sys.exit(_FAILED)


def _end_interrupted() -> NoReturn:
    """Ends the process of an interrupted command, whose context managers have ended.

    Not by SystemExit: `python -m` then ends by SIGINT where the interrupt hit code made from a text, as in the import
    of a namedtuple, though it is handled.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe, a closed stream
            stream.flush()
    os._exit(_INTERRUPTED)


def exit_code(error: S2M3Error) -> int:
    """Returns the exit code for an error."""
    if isinstance(error, NoCapacityError):
        return _NO_CAPACITY
    return _USAGE if isinstance(error, BadInputError | UnknownTaskError | TooLargeError) else _FAILED
