"""The commands `node set`, `show`, `clear`, `sleep`, `wake`: settings of nodes, and machines that sleep."""

import json
import re
from ipaddress import IPv4Address
from typing import Annotated, Any

import typer
from rich.console import Console

from s2m3.commands import options
from s2m3.commands.orders import order
from s2m3.commands.terminal import Listing, console
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, RequestTimeoutError
from s2m3.schemas.near_names import among, no_such
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.sleep import DISCARD_PORT, MAC_PATTERN, NodeSettings
from s2m3.snapshot import Site

__all__ = ["app"]

app = typer.Typer(help="Nodes: preferences, and machines that sleep.", no_args_is_help=True)

_OFF = "off"
_Node = Annotated[str, typer.Argument(help="name of the node", show_default=False)]
#: Time for a node that is to sleep to hand over its modules, as after SIGTERM, and a margin.
_ASLEEP_S = 30.0


@app.command("set")
@options.with_settings(BrokerSettings)
def set_node(
    settings: BrokerSettings,
    node: _Node,
    *,
    prefer: Annotated[
        float | None, typer.Option(min=0, max=100, help="preference for the node; a point is worth 1 s per step [1]")
    ] = None,
    wake: Annotated[str | None, typer.Option(help="MAC address for Wake-on-LAN; off: the node is never woken")] = None,
    wake_address: Annotated[
        str | None, typer.Option(help="ADDRESS[:PORT] of magic packets; off: the broadcast address, port 9")
    ] = None,
    idle_minutes: Annotated[
        str | None, typer.Option(help="minutes without work after which it puts its machine to sleep; off: never")
    ] = None,
) -> None:
    """Say how much a node is preferred, and how its machine is woken. What is not named stays as it is.

    `s2m3 node set desktop --prefer 2 --wake 52:54:00:12:34:56 --idle-minutes 20`
    """
    changes: dict[str, Any] = {} if prefer is None else {"prefer": prefer}
    if wake is not None:
        changes["wake"] = None if wake == _OFF else _mac(wake)
    if wake_address is not None:
        changes |= _where(wake_address)
    if idle_minutes is not None:
        changes["idle_minutes"] = None if idle_minutes == _OFF else _minutes(idle_minutes)
    if not changes:
        raise BadInputError("nothing to set: --prefer, --wake, --wake-address or --idle-minutes")
    with Site(settings, with_node_settings=True) as site:
        _check_known(site, node)
        found = NodeSettings.model_validate({**site.settings.get(node, NodeSettings()).model_dump(), **changes})
        site.publish(topics.NODE_SETTINGS, found.encode(), node=node)
        _say_what_lacks(site, node, found)
    typer.echo(f"{node}: {_line(found)}")


@app.command("show")
@options.with_settings(BrokerSettings)
def show(
    settings: BrokerSettings,
    node: Annotated[str | None, typer.Argument(help="name of a node; default: all that have settings")] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Show the settings of nodes, and what is done about those that sleep. `s2m3 node show`."""
    with Site(settings, with_node_settings=True) as site, site.still():
        if node is not None:
            _check_known(site, node)
        found = {name: site.settings.get(name, NodeSettings()) for name in ([node] if node else sorted(site.settings))}
        said = site.planner.asleep if site.planner else {}
        asleep = {name: text for name, text in said.items() if name not in site.nodes.present}
    if as_json:
        rows = {name: one.model_dump(exclude_none=True) | {"asleep": asleep.get(name)} for name, one in found.items()}
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    table = Listing("node", "settings", "asleep")
    for name, one in found.items():
        table.add_row(name, _line(one), asleep.get(name, "-"))
    console().print(table)


@app.command("clear")
@options.with_settings(BrokerSettings)
def clear(settings: BrokerSettings, node: _Node) -> None:
    """Clear the settings of a node. `s2m3 node clear desktop`."""
    with Site(settings, with_node_settings=True) as site:
        if node not in site.settings:
            raise BadInputError(f"node {node!r} has no settings; there are settings of: {among(site.settings, node)}")
        site.publish(topics.NODE_SETTINGS, b"", node=node)
    typer.echo(f"the settings of {node} are cleared")


@app.command("sleep")
@options.with_settings(BrokerSettings)
def sleep(
    settings: BrokerSettings,
    node: _Node,
    *,
    wait: Annotated[float, typer.Option(min=0, help="seconds that the node has to hand its modules over")] = _ASLEEP_S,
) -> None:
    """Put a node's machine to sleep: its modules move first, then its agent runs its sleep command.

    `s2m3 node sleep desktop`; the agent there was started with `--sleep-command "systemctl suspend"`.
    """
    with Site(settings, with_node_settings=True) as site:
        order(site, "sleep", node)
        if not site.wait(lambda s: s.nodes.has_left(node), wait):
            raise RequestTimeoutError(f"{node} has not left after {wait:g} s: it is {site.nodes.state(node)}")
        can_be_woken = (found := site.settings.get(node)) is not None and found.wake is not None
    told = (
        "a request that wants it wakes it" if can_be_woken else f"nobody can wake it: s2m3 node set {node} --wake MAC"
    )
    typer.echo(f"{node} sleeps; {told}")


@app.command("wake")
@options.with_settings(BrokerSettings)
def wake_node(
    settings: BrokerSettings,
    node: _Node,
    *,
    wait: Annotated[float, typer.Option(min=0, help="seconds that the node has to come")] = 90.0,
) -> None:
    """Wake a node's machine by a magic packet, and wait until it is there. `s2m3 node wake desktop`."""
    with Site(settings, with_node_settings=True) as site:
        if node in site.nodes.present:
            typer.echo(f"{node} is awake")
            return
        order(site, "wake", node)
        with Console(stderr=True).status(f"waking {node}"):
            came = site.wait(lambda s: node in s.nodes.present, wait)
        if not came:
            said = site.planner.asleep.get(node, "") if site.planner else ""
            raise RequestTimeoutError(f"{node} did not come in {wait:g} s; {said or 'no planner says why'}")
    typer.echo(f"{node} is awake")


def _check_known(site: Site, node: str) -> None:
    known = {*site.profiles, *site.nodes.present, *site.nodes.lost, *site.settings}
    if node not in known:
        raise BadInputError(no_such("node", node, known))


def _mac(text: str) -> str:
    """Returns a MAC address as it is on the bus; `52-54-00-12-34-56` and `525400123456` are read too."""
    digits = re.sub(r"[:.-]", "", text.strip().lower())
    found = ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))
    if re.fullmatch(MAC_PATTERN, found) is None:
        raise BadInputError(f"--wake {text}: not a MAC address such as 52:54:00:12:34:56 (`ip link` on that machine)")
    return found


def _where(text: str) -> dict[str, Any]:
    """Returns the settings' fields for the address of magic packets."""
    if text == _OFF:
        return {"wake_address": None, "wake_port": DISCARD_PORT}
    address, colon, digits = text.partition(":")
    try:
        found, port = str(IPv4Address(address)), int(digits) if colon else DISCARD_PORT
    except ValueError as error:
        raise BadInputError(f"--wake-address {text}: not ADDRESS[:PORT], e.g. 192.168.1.255:9") from error
    if not 0 < port < 65_536:  # noqa: PLR2004  # ports of UDP
        raise BadInputError(f"--wake-address {text}: there is no port {port}")
    return {"wake_address": found, "wake_port": port}


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 100_000:  # noqa: PLR2004  # as NodeSettings has it
        raise BadInputError(f"--idle-minutes {text}: minutes above 0, or {_OFF}")
    return minutes


def _line(found: NodeSettings) -> str:
    """Returns settings as a line of text."""
    address = found.wake_address or "broadcast"
    wake = f"woken at {found.wake} ({address}, port {found.wake_port})" if found.wake else "never woken"
    idle = f"sleeps after {found.idle_minutes:g} idle minutes" if found.idle_minutes else "does not sleep by itself"
    return f"weight {found.prefer:g}, {wake}, {idle}"


def _say_what_lacks(site: Site, node: str, found: NodeSettings) -> None:
    """Prints on stderr what else is needed for settings to have an effect."""
    profile = site.profiles.get(node)
    if found.idle_minutes is not None and profile is not None and not profile.sleeps:
        typer.echo(f"{node} has no sleep command: start its agent with --sleep-command", err=True)
    if found.idle_minutes is not None and found.wake is None:
        typer.echo(f"nobody wakes {node} again: --wake sets its MAC address", err=True)
    others = [name for name in site.nodes.present - {node} if name in site.profiles]
    if found.wake is not None and not others:
        typer.echo(f"no other node is there that could wake {node}: an agent on its network sends the packet", err=True)
