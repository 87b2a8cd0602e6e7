"""The command `drain`: takes a node out gently, and takes that back with `--undo`."""

import secrets
from typing import Annotated

import typer

from s2m3.commands import options
from s2m3.commands.orders import order
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, RequestTimeoutError, S2M3Error
from s2m3.schemas.near_names import no_such
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site

__all__ = ["drain"]


@options.with_settings(BrokerSettings)
def drain(
    settings: BrokerSettings,
    node: Annotated[str, typer.Argument(help="name of the node to take out")],
    *,
    undo: Annotated[bool, typer.Option("--undo", help="have a drained node take work again")] = False,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait until it has happened")] = 20,
) -> None:
    """Take a node out gently: its modules move to other nodes first. `s2m3 drain pi5`, with large modules `--wait 300`.

    `s2m3 drain pi5 --undo` has it take work again; so does a restart of its agent.
    """
    with Site(settings) as site:
        if node not in site.nodes.present:
            raise BadInputError(no_such("node", node, site.nodes.present))
        if undo:
            typer.echo(_undone(site, node, wait))
            return
        _order(site, node)
        site.wait(lambda s: s.nodes.state(node) != "ready" and not _holds_anything(s, node), wait)
        if site.nodes.state(node) == "ready":
            raise RequestTimeoutError(
                f"{node} has not followed the order to drain after {wait:g} s: see its agent's log"
            )
        if _holds_anything(site, node):
            raise RequestTimeoutError(
                f"{node} takes no more work, but after {wait:g} s it still {_held(site, node)}; "
                f"wait on: s2m3 drain {node} --wait 300; take it back: s2m3 drain {node} --undo"
            )
    typer.echo(
        f"{node} is drained: it holds no modules and can be switched off; take it back: s2m3 drain {node} --undo"
    )


def _order(site: Site, node: str) -> None:
    """Orders a node to drain.

    Raises:
        S2M3Error: No planner answered. The node may have heard the order all the same, and the text says so.
    """
    try:
        order(site, "drain", node)
    except S2M3Error as error:
        if site.nodes.state(node) == "draining":
            error.detail += f"; {node} takes no more work all the same, take that back: s2m3 drain {node} --undo"
        raise


def _undone(site: Site, node: str, wait: float) -> str:
    """Orders a node to take work again, and returns the line for its user.

    The node's own state is the answer: an older planner does not know this order.

    Raises:
        RequestTimeoutError: The node did not follow in time.
    """
    if site.nodes.state(node) == "ready":
        return f"{node} is not drained: it takes work"
    request = m.ControlRequest(transaction=secrets.token_hex(8), node=node)
    site.publish(topics.CONTROL, request.encode(), verb="undrain")
    if not site.wait(lambda s: s.nodes.state(node) == "ready", wait):
        raise RequestTimeoutError(
            f"{node} is {site.nodes.state(node)} after {wait:g} s: its agent ends, or is of an older release that "
            "does not know this order; started again, it takes work again"
        )
    return f"{node} takes work again"


def _holds_anything(site: Site, node: str) -> bool:
    plan, reported = site.plans.get(node), site.reported.get(node)
    return bool(plan and (plan.modules or plan.gateways)) or bool(reported and reported.modules)


def _held(site: Site, node: str) -> str:
    """Returns what a draining node still does, and why: `holds vit, which is on its way to desktop`."""
    plan, reported = site.plans.get(node), site.reported.get(node)
    modules = {spec.id for spec in (plan.modules if plan else ())} | {*(reported.modules if reported else ())}
    others = {other: site.plans[other] for other in site.nodes.present - {node} if other in site.plans}
    taker = {spec.id: other for other, theirs in others.items() for spec in theirs.modules}
    lines = [f"holds {module}, which is on its way to {taker[module]}" for module in sorted(modules & taker.keys())]
    if stuck := sorted(modules - taker.keys()):
        lines.append(f"holds {', '.join(stuck)}, which no other node takes so far (free memory: s2m3 status)")
    if plan is not None and plan.gateways:
        lines.append(f"is the gateway of {', '.join(plan.gateways)}")
    return " and ".join(lines) or "holds modules"
