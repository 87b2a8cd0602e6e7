"""The entry of the `s2m3` command. An agent runs in a child of this process, which then supervises it.

This process imports no package: the supervisor of an agent takes as much memory as Python does.
"""

import sys

from s2m3.agents.supervision.supervisor import can_supervise, supervise

#: Type checkers take it as typing's, whose import would cost the supervisor a megabyte.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from s2m3.agents.supervision.context import ProcessContext

__all__ = ["main"]


def main() -> None:
    """Runs the command that was typed. docs/commands.md has a table of the exit codes."""
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if named == "agent" and can_supervise():
        supervise(lambda context: _run(named, context))
    else:
        _run(named, None)


def _run(named: str, context: "ProcessContext | None") -> None:
    if context is not None:
        _import_structlog_alone()
    from s2m3.command_line import run  # noqa: PLC0415  # of an agent, in the child alone

    run(named, context)


def _import_structlog_alone() -> None:
    """Imports structlog without what it uses where it is installed: rich (3 MB) for tracebacks, and greenlet (1 MB)."""
    optional = [name for name in ("rich", "greenlet") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(optional))  # type: ignore[arg-type]
    import structlog  # noqa: F401, PLC0415  # of an agent, in the child alone

    for name in optional:
        del sys.modules[name]
