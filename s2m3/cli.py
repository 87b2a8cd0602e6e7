"""The `s2m3` command: parses the command line, prints errors in one line, sets the exit code. The work is elsewhere."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from s2m3.commands import ask as asking
from s2m3.commands import bind as binding
from s2m3.commands import calibrate as calibrating
from s2m3.commands import dashboard, local, services, status, tasks, weights
from s2m3.commands import plan as offline
from s2m3.commands import secure as secured
from s2m3.commands import split as splitting
from s2m3.commands import uninstall as leaving
from s2m3.schemas.errors import BadInputError, NoCapacityError, S2M3Error, TooLargeError, UnknownTaskError

__all__ = ["main"]

_FAILED, _USAGE, _NO_CAPACITY, _INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    help="Split-and-share multi-modal models on the devices you own, over MQTT.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
task_app = typer.Typer(help="Tasks: named, running uses of a model.", no_args_is_help=True)

app.command()(local.demo)
app.command()(local.up)
app.command()(weights.weights)
app.command()(asking.ask)
app.command("status")(status.status)
app.command()(status.watch)
app.command()(dashboard.dashboard)
app.add_typer(task_app, name="task")
app.add_typer(secured.app, name="secure")
app.command()(calibrating.calibrate)
task_app.command("add")(tasks.add)
task_app.command("rm")(tasks.remove)
task_app.command("ls")(tasks.list_tasks)
app.command()(tasks.models)
app.command("broker")(services.broker)
app.command("planner")(services.planner)
app.command("agent")(services.agent)
app.command("bridge")(services.bridge)
app.command()(binding.bind)
app.command()(binding.unbind)
app.command("bindings")(binding.list_bindings)
app.command()(services.drain)
app.command()(services.forget)
app.command()(services.replan)
app.command()(leaving.uninstall)
app.command()(offline.plan)
app.command()(splitting.split)


def _print_version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"s2m3 {version('s2m3')}")
        raise typer.Exit


@app.callback()
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


def main() -> None:
    """Runs the command. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 modules do not fit on the nodes.

    130 is an interrupt (Ctrl-C). docs/commands.md has a table of the errors by exit code.
    """
    try:
        app()
    except S2M3Error as error:
        if "--verbose" in sys.argv or "-v" in sys.argv:
            raise
        sys.stderr.write(f"s2m3: {error}\n")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # `s2m3 status | head`
        sys.stderr.close()
        sys.exit(_FAILED)


def exit_code(error: S2M3Error) -> int:
    """Returns the exit code for an error."""
    if isinstance(error, NoCapacityError):
        return _NO_CAPACITY
    return _USAGE if isinstance(error, BadInputError | UnknownTaskError | TooLargeError) else _FAILED
