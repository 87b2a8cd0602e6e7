"""Publishes a node's documents: state, profile and report (retained, again after each connect), and its load."""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import structlog

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.registry.exported import exported_for_others, served_of_exports
from s2m3.agents.registry.mapped import mapped_classes
from s2m3.agents.resources import Resources, host_id
from s2m3.agents.speed import LinkSpeed
from s2m3.agents.wake_on_lan import own_network
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.document import Document
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.parts import PartStock
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.wire.work import Timing

__all__ = ["Presence"]

_log = structlog.get_logger(__name__)
#: Relative change of a module's measured time that causes a new report.
_CHANGED = 0.2
#: Most keys of cached parts in the profile.
_MOST_KEYS = 256


class Presence:
    """Publishes the documents of one node.

    Args:
        link: The agent's connection.
        node: The node's name.
        boot: The boot id, a uuid of the agent's process.
        broker: Returns the broker of the connection (`current_broker`).
    """

    def __init__(self, link: Link, node: str, boot: str, broker: Callable[[], str] = lambda: "") -> None:
        self._link, self._broker = link, broker
        self._node = node
        self._state = m.NodeState(state="ready", boot=boot, protocol=PROTOCOL)
        self._leaves = False
        self._reported = m.Reported(boot=boot)
        self._profile: m.NodeProfile | None = None
        #: sources that tasks named and that this node can load
        self._named_sources: set[str] = set()
        self._load: Mapping[str, int] = {}
        #: keys of the parts that were exported here
        self._made: list[str] = []

    @property
    def state(self) -> str:
        """The node's state: ready, draining or lost."""
        return self._state.state

    def introduce(
        self,
        *,
        resources: Resources,
        runtime_mb: float,
        keepalive_s: float,
        link_speed: LinkSpeed,
        with_torch: bool,
        gateway: bool,
        most_gateways: int | None,
        sources: CheckpointSources,
        parts: PartCache | None = None,
        sleeps: bool = False,
    ) -> None:
        """Sets the profile, and publishes all retained documents for the first time."""
        speeds = resources.measured_speeds()
        offered, classes = registry.offered(sources, with_torch=with_torch)
        sent = {*sources.offered(), *self._named_sources} - {"hub"}
        self._profile = m.NodeProfile(
            boot=self._state.boot,
            version=_version(),
            protocol=PROTOCOL,
            memory_mb=resources.memory_mb,
            runtime_mb=runtime_mb,
            gflops=resources.gflops(speeds),
            latency_ms=link_speed.latency_ms,
            mbps=link_speed.mbps,
            keepalive_s=keepalive_s,
            sources=sorted({*offered, *self._named_sources}),
            classes=classes,
            gateway=gateway,
            most_gateways=most_gateways,
            dtype=resources.dtype,
            device=resources.device.name,
            host=host_id(),
            speeds={name: round(speed, 1) for name, speed in speeds.items()},
            host_memory_mb=0.0 if resources.device.is_cpu else resources.host_mb,
            runtimes=sorted(sources.runtimes),
            exported=served_of_exports(sources),
            mapped=mapped_classes(sources, resources.device),
            parts=None if parts is None else self._stock(sources, sent, parts),
            network=own_network(),
            sleeps=sleeps,
        )
        self.tell_all()

    def _stock(self, sources: CheckpointSources, sent: set[str], parts: PartCache) -> PartStock:
        self._made = sources.exports.keys(_MOST_KEYS)
        keys = sorted({*parts.keys(_MOST_KEYS), *self._made})
        return PartStock(sources=sorted(sent), keys=keys, exports=exported_for_others(sources))

    def offer(self, sources: set[str]) -> None:
        """Adds sources to the profile, and publishes it if it changed."""
        self._named_sources |= sources
        if self._profile is not None and not sources <= set(self._profile.sources):
            update: dict[str, object] = {"sources": sorted({*self._profile.sources, *sources})}
            if (stock := self._profile.parts) is not None:
                update["parts"] = stock.model_copy(update={"sources": sorted({*stock.sources, *sources})})
            self._profile = self._profile.model_copy(update=update)
            self._publish(topics.NODE_PROFILE, self._profile)

    def keep(self, parts: PartCache) -> None:
        """Sets which parts of checkpoints are in the node's cache, and publishes the profile if it changed."""
        if self._profile is None or (stock := self._profile.parts) is None:
            return
        if (keys := sorted({*parts.keys(_MOST_KEYS), *self._made})) != stock.keys:
            update = {"parts": stock.model_copy(update={"keys": keys})}
            self._profile = self._profile.model_copy(update=update)
            self._publish(topics.NODE_PROFILE, self._profile)

    def may_send(self, source: str) -> bool:
        """Returns whether the profile says that parts of a source are sent to other nodes."""
        stock = self._profile.parts if self._profile is not None else None
        return stock is not None and source in stock.sources

    def may_export(self, spec: ModuleSpec) -> bool:
        """Returns whether the profile says that a module's part is exported for other nodes."""
        profile, adapter = self._profile, spec.config.get(ADAPTER)
        if profile is None or profile.parts is None or spec.class_ not in profile.parts.exports:
            return False
        return spec.source in profile.sources and (adapter is None or str(adapter) in profile.sources)

    def tell_all(self) -> None:
        """Publishes all retained documents, the state last; after a reconnect this restores a broker that lost them."""
        if self._profile is not None:
            self._profile = self._profile.model_copy(update={"broker": self._broker()})
            self._publish(topics.NODE_PROFILE, self._profile)
            self._publish(topics.NODE_REPORTED, self._reported)
            self.tell_state()

    def tell_state(self) -> None:
        """Publishes the state, if `introduce` has set the profile."""
        if self._profile is not None:
            self._publish(topics.NODE_STATE, self._state)

    def is_denied_by(self, state: m.NodeState) -> bool:
        """Returns whether a state under this node's name has to be corrected: an earlier process's, or not ours.

        What we said before the state changed counts too: it may arrive late, and to correct it once more does no harm.
        """
        if self.state == "lost":
            return False
        return state.state == "lost" or (state.boot == self._state.boot and state.state != self.state)

    def drain(self, *, leaves: bool = False) -> None:
        """Publishes that the node takes no new work; `leaves` if it then ends, which no order takes back."""
        self._leaves = self._leaves or leaves
        if self.state == "ready":
            _log.info("draining", node=self._node)
            self.change_state("draining")

    def undrain(self) -> None:
        """Publishes that the node takes work again, if an order had it drain and it is not ending."""
        if self.state == "draining" and not self._leaves:
            _log.info("undrained", node=self._node)
            self.change_state("ready")

    def change_state(
        self, state: Literal["ready", "draining", "lost"], *, left: bool = False, asleep: bool = False
    ) -> None:
        """Sets and publishes a new state; `left` if the node leaves in order, `asleep` if its machine goes to sleep."""
        self._state = self._state.model_copy(update={"state": state, "left": left, "asleep": asleep})
        self.tell_state()

    def report(self, reported: m.Reported) -> None:
        """Publishes the report of the node's modules, if it changed significantly."""
        if _changed_significantly(self._reported, reported):
            self._reported = reported
            self._publish(topics.NODE_REPORTED, reported)

    def report_modules(
        self,
        plan: m.Plan,
        reports: Mapping[str, m.ModuleReport],
        speeds: Mapping[str, float],
        *,
        runtime_mb: float,
        free_mb: float,
        pressure_mb: float,
        host_mb: float = 0.0,
    ) -> None:
        """Publishes the report of the node's modules, if it changed significantly.

        Args:
            plan: The plan that the node follows.
            reports: Module -> its report.
            speeds: Module -> milliseconds per item, of those that have run.
            runtime_mb: Memory of the process without modules, 10^6 bytes.
            free_mb: What the modules leave of the budget, 10^6 bytes.
            pressure_mb: What the node lacks of its budget because of memory pressure, 10^6 bytes.
            host_mb: What the process takes of the host's memory, where the budget is of a device's, 10^6 bytes.
        """
        modules = {
            name: report.model_copy(update={"ms": round(speeds[name], 3)}) if name in speeds else report
            for name, report in reports.items()
        }
        self.report(
            m.Reported(
                boot=self._state.boot,
                epoch=plan.epoch,
                revision=plan.revision,
                modules=modules,
                runtime_mb=round(runtime_mb),
                host_mb=round(host_mb),
                free_mb=round(max(0.0, free_mb - pressure_mb)),
                pressure_mb=round(pressure_mb),
            )
        )

    def tell_load(
        self,
        queues: Mapping[str, int],
        finished: Mapping[str, int],
        latest: Mapping[str, Mapping[str, Timing]],
        *,
        idle_too: bool,
    ) -> None:
        """Publishes the load while the node is busy, and once more when the queues have become empty.

        Args:
            queues: Items per module.
            finished: Finished requests per task since the last call.
            latest: Task -> step -> timing of the newest of these requests.
            idle_too: Whether to publish for an idle node too: the load is the heartbeat, without which a node is lost.
        """
        if queues or finished or self._load or idle_too:
            steps = {
                task: {step: m.StepTiming(**timing.as_dict()) for step, timing in timings.items()}
                for task, timings in latest.items()
            }
            keepalive_s = self._profile.keepalive_s if self._profile is not None else 0.0
            load = m.NodeLoad(queues=dict(queues), finished=dict(finished), latest=steps, keepalive_s=keepalive_s)
            self._publish(topics.NODE_LOAD, load)
        self._load = queues

    def failed(self, module: str, error: S2M3Error) -> m.ModuleReport:
        """Publishes the event of a module that failed on this node, and returns the report of it."""
        self.event(m.Event(event="module_failed", node=self._node, module=module, detail=str(error)))
        return m.ModuleReport(state="failed", reason=m.ErrorBody(**error.as_dict()))

    def event(self, event: m.Event) -> None:
        """Publishes an event; a failure is logged."""
        try:
            self._link.publish(Outgoing(topics.EVENT.at(self._link.root), event.encode()))
        except S2M3Error as error:
            _log.warning("not_published", node=self._node, topic="event", error=str(error))

    def _publish(self, path: topics.TopicPath, document: Document) -> None:
        try:
            topic = path.at(self._link.root, node=self._node)
            self._link.publish(Outgoing(topic, document.encode(), qos=path.qos, retain=path.retain))
        except S2M3Error as error:
            _log.warning("not_published", node=self._node, topic=path.pattern, error=str(error))


def _version() -> str:
    try:
        return version("s2m3")
    except PackageNotFoundError:  # run from a checkout
        return "0"


def _changed_significantly(old: m.Reported, new: m.Reported) -> bool:
    if _without_times(old) != _without_times(new):
        return True
    return any(
        abs(r.ms - old.modules[name].ms) > _CHANGED * max(old.modules[name].ms, 0.1) for name, r in new.modules.items()
    )


def _without_times(reported: m.Reported) -> m.Reported:
    modules = {name: report.model_copy(update={"ms": 0.0}) for name, report in reported.modules.items()}
    return reported.model_copy(update={"modules": modules})
