"""The commands that run one service each (broker, planner, bridge), and the orders to a site: forget, replan."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import typer

from s2m3 import logs, telemetry
from s2m3.broker.leader_election import BRIDGE, PLANNER, Election, wait_for_leadership
from s2m3.broker.servers.launch import Broker, default_kind, port_is_free
from s2m3.commands import options
from s2m3.commands.orders import order
from s2m3.commands.signals import Signals
from s2m3.schemas import extras, topics
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.errors import BadInputError, S2M3Error, UnauthorisedError
from s2m3.schemas.near_names import no_such
from s2m3.schemas.settings import BridgeSettings, BrokerSettings, PlannerSettings
from s2m3.snapshot import Site

__all__ = ["bridge", "broker", "forget", "planner", "replan"]

_ANSWER_S = 10.0


def broker(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="port for MQTT v5 (Mosquitto: 3.1.1 too)")] = 1883,
    port_v3: Annotated[int, typer.Option(min=0, max=65_535, help="port for MQTT 3.1.1 on the embedded broker")] = 1884,
    port_ws: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="port for the page (MQTT over websockets); default: none")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="mosquitto | embedded; default: Mosquitto where installed")] = None,
    *,
    verbose: options.Verbose = False,
) -> None:
    """Run a broker on this machine, for this machine: loopback, no login. `s2m3 broker --port 1883`."""
    logs.configure(verbose=verbose)
    signals = Signals()
    chosen = options.broker_kind(kind, "--kind") or default_kind()
    taken = {"--port": port, "--port-v3": port_v3 if chosen == "embedded" else 0, "--port-ws": port_ws or 0}
    for flag, number in taken.items():
        if number and not port_is_free(number):
            raise BadInputError(f"{flag} {number}: something listens there already; {flag} 0 picks a free one")
    with Broker(chosen, port=port, port_v3=port_v3, ws_port=port_ws, root=BrokerSettings.load().root) as running:
        typer.echo(f"{running.kind} broker on 127.0.0.1:{running.port} (MQTT 3.1.1: {running.port_v3})")
        if door := running.page:
            typer.echo(f"the page: s2m3 dashboard --broker {door.url}; user {door.username}, password {door.password}")
        while not signals.stop.wait(0.5):
            if running.process is not None and running.process.poll() is not None:
                raise S2M3Error(f"the {running.kind} broker ended with {running.process.returncode}")


@options.with_settings(
    PlannerSettings,
    quiet=False,
    models=Annotated[Path | None, typer.Option(help="folder of further model definitions (*.toml)")],
    architectures=options.Architectures,
    spare=Annotated[bool | None, typer.Option(help="fill spare memory with second copies [yes]")],
    metrics_port=options.MetricsPort,
)
def planner(settings: PlannerSettings) -> None:
    """Run the planner: places modules on the nodes there are. A second one stands by. `s2m3 planner --host hub`."""
    from s2m3.planner.catalogue import catalogue_of  # noqa: PLC0415  # `s2m3 broker` has no use for it
    from s2m3.planner.service import Planner  # noqa: PLC0415
    from s2m3.planner.site.placer import placer  # noqa: PLC0415

    catalogue = catalogue_of(settings.models, own_architectures(settings.architectures))
    telemetry.start(settings, "s2m3-planner", socket.gethostname())
    _when_elected(
        PLANNER, settings, lambda epoch: Planner(settings, catalogue, placer=placer(settings.budget_s), epoch=epoch)
    )


class _Elected(Protocol):
    """The common interface of planner and bridge, of which a site has one leader each."""

    superseded: threading.Event

    @property
    def newest(self) -> int:
        """The newest epoch seen of another instance."""

    @property
    def refused(self) -> UnauthorisedError | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


def _when_elected(election: Election, settings: BrokerSettings, make: Callable[[int], _Elected]) -> None:
    """Stands by, leads, and stands by again when a newer instance leads, until a signal.

    Args:
        election: The election of the service.
        settings: The broker's address, and the login.
        make: Makes the service, given the newest epoch seen.
    """
    signals = Signals()
    newest = 0
    while not signals.stop.is_set():
        epoch = max(newest, wait_for_leadership(election, settings, signals.stop))
        if signals.stop.is_set():
            return
        running = make(epoch)
        running.start()
        while not signals.stop.wait(0.2) and not running.superseded.is_set():
            if running.refused is not None:
                raise running.refused
        running.stop()
        newest = running.newest


@options.with_settings(
    BridgeSettings,
    quiet=False,
    homeassistant=Annotated[bool | None, typer.Option(help="announce nodes and tasks to Home Assistant [yes]")],
    discovery_prefix=Annotated[
        str | None, typer.Option(help="prefix of discovery topics, as set in Home Assistant [homeassistant]")
    ],
    forget_s=Annotated[
        float | None, typer.Option(help="seconds from a connect until what nobody has published again is gone [30]")
    ],
    pictures=Annotated[
        str | None,
        typer.Option(help="seconds that a task's last picture stays on the broker, or off: none is published [600]"),
    ],
    answers=Annotated[
        str | None, typer.Option(help="seconds that last answers stay on the broker, or off, or keep: for ever [86400]")
    ],
    history=Annotated[
        Path | None, typer.Option(help="file that keeps answers and pictures for the page [in memory, 10 minutes]")
    ],
    history_mb=Annotated[float | None, typer.Option(help="most megabytes of that file [100]")],
    history_days=Annotated[float | None, typer.Option(help="days that an answer stays in that file [14]")],
    metrics_port=options.MetricsPort,
)
def bridge(settings: BridgeSettings) -> None:
    """Run the bridge to a house: bindings, Home Assistant. A second one stands by. `s2m3 bridge --host hub`."""
    extras.require("bridge", "the bridge")
    from s2m3.bridge.service import Bridge  # noqa: PLC0415  # a device that only asks has not all that it imports

    telemetry.start(settings, "s2m3-bridge", socket.gethostname())
    _when_elected(BRIDGE, settings, lambda epoch: Bridge(settings, epoch))


@options.with_settings(BrokerSettings)
def forget(
    settings: BrokerSettings, node: Annotated[str, typer.Argument(help="name of the node that is gone")]
) -> None:
    """Clear what a node that will not return has left on the broker. `s2m3 forget pi5`."""
    with Site(settings) as site:
        if site.nodes.state(node) is None and node not in site.profiles:
            raise BadInputError(no_such("node", node, site.profiles))
        for left in (topics.NODE_STATE, topics.NODE_REPORTED, topics.NODE_PROFILE, topics.NODE_SETTINGS):
            site.publish(left, b"", node=node)
    typer.echo(f"{node} is forgotten; if it still runs it tells of itself again")


@options.with_settings(BrokerSettings)
def replan(
    settings: BrokerSettings,
    *,
    measure: Annotated[bool, typer.Option(help="have the nodes measure their speed and link again first")] = False,
    as_json: options.Json = False,
) -> None:
    """Have the planner place all modules afresh. `s2m3 replan --measure`."""
    with Site(settings) as site:
        if measure:
            before = dict(site.profiles)
            order(site, "profile", None)
            site.wait(
                lambda s: all(s.profiles[n] is not before.get(n) for n in s.nodes.ready if n in s.profiles), _ANSWER_S
            )
        data = order(site, "replan", None).data
    typer.echo(
        json.dumps(data) if as_json else f"planned: revision {data.get('revision')} of epoch {data.get('epoch')}"
    )
