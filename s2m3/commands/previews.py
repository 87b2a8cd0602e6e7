"""`task add --dry-run`: prints the memory and the nodes that the planner expects of a task. Adds nothing."""

import typer

from s2m3.commands.orders import order
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.ids import check_id
from s2m3.schemas.preview import TaskPreview
from s2m3.schemas.protocol import FROM_THE_BUS
from s2m3.snapshot import Site

__all__ = ["say_preview"]


def say_preview(site: Site, name: str, spec: m.TaskSpec) -> None:
    """Prints what would happen if a task were added or changed.

    Raises:
        NoCapacityError: It does not fit.
        S2M3Error: Its model is unknown, or no planner answered.
    """
    check_id(name, "task")
    response = order(site, topics.PREVIEW, None, task=name, spec=spec.model_dump(mode="json", by_alias=True))
    found = TaskPreview.model_validate(response.data, context=FROM_THE_BUS)
    stand_in = ", a stand-in" if found.rank else ""
    typer.echo(f"{name} would be answered by {found.model}{stand_in}; {found.added_mb:g} MB more memory:")
    for module in found.modules:
        state = f"{module.memory_mb:g} MB" if module.is_new else "there already"
        state += ", its weights mapped from the disk: slow" if module.mapped else ""
        typer.echo(f"  {module.id} on {', '.join(module.nodes) or 'no node'}: {state}")
    for task, why in found.displaced.items():
        typer.echo(f"  {task} would be served worse: {why}")
