"""The commands that run one service each (broker, planner, agent, bridge), and the orders to a site: drain, replan."""

import json
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from s2m3 import logs, telemetry
from s2m3.broker.leader_election import BRIDGE, PLANNER, Election, wait_for_leadership
from s2m3.broker.servers.launch import Broker, default_kind, port_is_free
from s2m3.commands import options
from s2m3.commands.orders import order
from s2m3.schemas import extras, topics
from s2m3.schemas.checkpoints.own_architectures import own_architectures
from s2m3.schemas.errors import BadInputError, S2M3Error, UnauthorisedError
from s2m3.schemas.settings import AgentSettings, BridgeSettings, BrokerSettings, PlannerSettings
from s2m3.snapshot import Site

if TYPE_CHECKING:
    from s2m3.agents.supervision.supervisor import ProcessContext

__all__ = ["agent", "bridge", "broker", "drain", "forget", "planner", "replan"]

_ANSWER_S = 10.0
_DRAIN_S = 20.0


class _Signals:
    """SIGINT ends at once, SIGTERM gently; a second one of either ends at once.

    Args:
        life: Of an agent, which gets its signals through its keeper.
    """

    def __init__(self, context: "ProcessContext | None" = None) -> None:
        self.stop = threading.Event()
        self.gently = False
        if context is not None:
            context.on_signal(self._on_signal)
            return
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        self.gently = number == signal.SIGTERM and not self.stop.is_set()
        self.stop.set()


def broker(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="for MQTT v5 (Mosquitto: 3.1.1 too)")] = 1883,
    port_v3: Annotated[int, typer.Option(min=0, max=65_535, help="for MQTT 3.1.1 on the embedded broker")] = 1884,
    port_ws: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="for the page: MQTT over websockets; default: none")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="mosquitto | embedded; default: Mosquitto where installed")] = None,
    *,
    verbose: options.Verbose = False,
) -> None:
    """Run a broker on this machine, for this machine: loopback, no login. `s2m3 broker --port 1883`."""
    logs.configure(verbose=verbose)
    signals = _Signals()
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
    from s2m3.planner.catalogue import catalogue_of  # noqa: PLC0415  # an agent, started by this file too, has no use for it
    from s2m3.planner.service import Planner  # noqa: PLC0415
    from s2m3.planner.site.placer import placer  # noqa: PLC0415

    catalogue = catalogue_of(settings.models, own_architectures(settings.architectures))
    telemetry.start(settings, "s2m3-planner", socket.gethostname())
    _when_elected(
        PLANNER, settings, lambda epoch: Planner(settings, catalogue, placer=placer(settings.budget_s), epoch=epoch)
    )


class _Elected(Protocol):
    """What the planner and the bridge have in common: a site has one of each at work."""

    superseded: threading.Event

    @property
    def newest(self) -> int:
        """The newest epoch it knows of another."""

    @property
    def refused(self) -> UnauthorisedError | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


def _when_elected(election: Election, settings: BrokerSettings, make: Callable[[int], _Elected]) -> None:
    """Stands by, works, and stands by again when a newer one has come, until a signal.

    Args:
        election: Of which service.
        settings: Where the broker is.
        make: Of the newest epoch seen: what is to be started.
    """
    signals = _Signals()
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
    AgentSettings,
    quiet=False,
    node=Annotated[str | None, typer.Option(help="this device's name on the bus; default: its host name")],
    memory_mb=Annotated[float | None, typer.Option(help="of the process, or of the device; default: by what is free")],
    device=Annotated[str | None, typer.Option(help="where modules compute: cpu, cuda:N, mps, xpu:N, auto [cpu]")],
    host_memory_mb=Annotated[float | None, typer.Option(help="beside a device's: of the process on the host")],
    threads=Annotated[int | None, typer.Option(help="compute threads; default: the cores over the agents here")],
    dtype=Annotated[str | None, typer.Option(help="of weights: fp32, bf16, fp16, int8; default: fp32")],
    checkpoints=Annotated[list[Path] | None, typer.Option(help="folder of checkpoints; repeat for several")],
    architectures=options.Architectures,
    parts=Annotated[Path | None, typer.Option(help="folder of the parts of checkpoints that other nodes send")],
    parts_mb=Annotated[
        float | None, typer.Option(help="most it may hold [half of the free disk]; 0: no part is fetched or sent")
    ],
    download=Annotated[bool | None, typer.Option(help="fetch checkpoints from the model hub [no]")],
    runtime=Annotated[str | None, typer.Option(help="run networks with onnx or torch alone [the faster one]")],
    exports=Annotated[Path | None, typer.Option(help="folder that `s2m3 weights --light` made")],
    queue=Annotated[int | None, typer.Option(help="items that may wait per module before `busy`")],
    gateway=Annotated[
        bool | None,
        typer.Option(
            "--gateway/--no-gateway",
            "--front/--no-front",
            help="take plain requests; not behind a bridge between brokers [yes]",
        ),
    ],
    sleep_command=Annotated[
        str | None, typer.Option(help="puts this machine to sleep when told or idle, e.g. 'systemctl suspend'")
    ],
    hang_s=Annotated[float | None, typer.Option(help="no batch is taken for hung before this many seconds [10]")],
    metrics_port=options.MetricsPort,
)
def agent(settings: AgentSettings) -> None:
    """Run an agent: this device serves modules. `s2m3 agent --host hub --node pi5 --memory-mb 1500`."""
    try:
        from s2m3.agents.checkpoints.storage.folders import CheckpointSources  # noqa: PLC0415
        from s2m3.agents.devices import open_device  # noqa: PLC0415
        from s2m3.agents.exports import exported_parts  # noqa: PLC0415
        from s2m3.agents.node_name import check_name_is_free  # noqa: PLC0415
        from s2m3.agents.runtimes.network import installed_runtimes  # noqa: PLC0415
        from s2m3.agents.service import Agent  # noqa: PLC0415
        from s2m3.agents.supervision.machine_sleep import MachineSleep  # noqa: PLC0415
        from s2m3.agents.supervision.supervisor import can_supervise, supervise  # noqa: PLC0415  # a device that only asks has none of what it imports
    except ModuleNotFoundError:
        extras.require("agent", "an agent")
        raise

    own = own_architectures(settings.architectures)
    runtimes = (settings.runtime,) if settings.runtime else installed_runtimes()
    exports = exported_parts(settings.exports)
    sources = CheckpointSources(settings.checkpoints, settings.download, own, runtimes, exports)
    sources.check()

    def run(context: "ProcessContext | None") -> bool:
        telemetry.start(settings, "s2m3-agent", settings.node)
        signals = _Signals(context)
        open_device(settings.device)  # it is missing: an error before anything else
        check_name_is_free(settings)
        running = Agent(settings, context, sources)
        running.start()
        while not signals.stop.wait(0.2) and not running.wants_sleep:
            if running.refused is not None:
                raise running.refused
        sleeps = not signals.stop.is_set()
        if signals.gently or sleeps:
            signals.stop.clear()
            running.drain(_DRAIN_S, unless=signals.stop)
        is_told_to_end = signals.stop.is_set()
        running.stop(left=not is_told_to_end)
        return sleeps and not is_told_to_end

    sleep = MachineSleep(settings.sleep_command, settings.sleep_grace_s) if settings.sleep_command else None
    if can_supervise():
        supervise(run, sleep)
        return
    while run(None) and sleep is not None:
        sleep.run(lambda: False)


@options.with_settings(
    BridgeSettings,
    quiet=False,
    homeassistant=Annotated[bool | None, typer.Option(help="announce nodes and tasks to Home Assistant [yes]")],
    discovery_prefix=Annotated[str | None, typer.Option(help="as set in Home Assistant [homeassistant]")],
    forget_s=Annotated[float | None, typer.Option(help="what nobody tells again so long after a connect is gone [30]")],
    pictures=Annotated[
        str | None, typer.Option(help="off, or seconds that a task's last picture stays on the broker [600]")
    ],
    answers=Annotated[
        str | None, typer.Option(help="off, keep, or seconds that last answers stay on the broker [86400]")
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
def drain(
    settings: BrokerSettings,
    node: Annotated[str, typer.Argument(help="the node to take out")],
    *,
    wait: Annotated[float, typer.Option(min=0, help="seconds that other nodes have to take its modules over")] = 20,
) -> None:
    """Take a node out gently: its modules move first. `s2m3 drain pi5`, for large modules with `--wait 300`."""
    with Site(settings) as site:
        order(site, "drain", node)
        moved = site.wait(lambda s: not _holds_anything(s, node), wait)
        if not moved:
            held = ", ".join(spec.id for spec in site.plans[node].modules) if node in site.plans else "nothing"
            raise S2M3Error(
                f"{node} takes no more work, but after {wait:g} s it still holds {held}: no other node can, or not yet"
            )
    typer.echo(f"{node} is drained: it holds no modules and can be switched off")


@options.with_settings(BrokerSettings)
def forget(settings: BrokerSettings, node: Annotated[str, typer.Argument(help="the node that is gone")]) -> None:
    """Clear what a node that will not return has left on the broker. `s2m3 forget pi5`."""
    with Site(settings) as site:
        if site.nodes.state(node) is None and node not in site.profiles:
            raise BadInputError(f"no node {node!r}; there are: {', '.join(sorted(site.profiles)) or 'none'}")
        for left in (topics.NODE_STATE, topics.NODE_REPORTED, topics.NODE_PROFILE, topics.NODE_SETTINGS):
            site.publish(left, b"", node=node)
    typer.echo(f"{node} is forgotten; if it still runs it tells of itself again")


def _holds_anything(site: Site, node: str) -> bool:
    plan, reported = site.plans.get(node), site.reported.get(node)
    return bool(plan and (plan.modules or plan.gateways)) or bool(reported and reported.modules)


@options.with_settings(BrokerSettings)
def replan(
    settings: BrokerSettings,
    *,
    measure: Annotated[bool, typer.Option(help="have the nodes measure their speed and link again first")] = False,
    as_json: options.Json = False,
) -> None:
    """Have the planner look at everything afresh. `s2m3 replan --measure`."""
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
