"""The agent: loads and serves the modules that its plan names, and is the gateway of the tasks that its plan names."""

import os
import threading
import time
import uuid
from contextlib import suppress
from functools import partial

import structlog

from s2m3.agents.checkpoints.storage.folders import NO_CHECKPOINTS, CheckpointSources
from s2m3.agents.gateway.gateway import Gateway
from s2m3.agents.gateway.gateways import Gateways
from s2m3.agents.loading import Loaded, Loader
from s2m3.agents.memory import available_mb, device_mb, rss_mb, set_budget_mb
from s2m3.agents.named_sources import NamedSources
from s2m3.agents.node_name import NameConflict
from s2m3.agents.open_files import most_gateways, raise_limit
from s2m3.agents.orders import Orders
from s2m3.agents.parts.exchange import PartExchange, with_fetched
from s2m3.agents.presence import Presence
from s2m3.agents.pressure import Pressure
from s2m3.agents.resources import Resources
from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.serving.step_server import StepServer
from s2m3.agents.speed import link_speed
from s2m3.agents.supervision.context import HUNG, ProcessContext
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.agents.threads import limit_threads
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Will
from s2m3.broker.mqtt.sockets import current_broker
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.roll_call import answer_roll_calls
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadDefinitionError, ModuleFailedError, NoCapacityError, S2M3Error, UnauthorisedError
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.sessions import node_client_id
from s2m3.schemas.settings import AgentSettings

__all__ = ["Agent"]

_log = structlog.get_logger(__name__)
_REPORT_S, _LOAD_S, _WATCH_S = 2.0, 1.0, 0.5
#: A module is unloaded this long after the plan has dropped it, as messages sent by an older route may still arrive.
_UNLOAD_S = 1.0
#: A stopping broker publishes all last wills and then closes. A loss within this time after our last will means that.
_BROKER_STOP_S = 0.5


class Agent:
    """The agent of one node. Its state belongs to the loop's thread; the runner and the loader have their own threads.

    Args:
        settings: The settings of this node.
        context: What the supervisor hands to the process: black box and crash history. None without a supervisor.
        sources: The checkpoints on this device.
    """

    def __init__(
        self,
        settings: AgentSettings,
        context: ProcessContext | None = None,
        sources: CheckpointSources = NO_CHECKPOINTS,
    ) -> None:
        self._settings = settings
        self._node, self._root = settings.node, settings.root
        self._boot = uuid.uuid4().hex
        self._resources = Resources.of(settings)
        set_budget_mb(self._resources.host_mb)
        self._pressure = Pressure(self._resources.host_mb, device_mb())
        self._loop = Loop("agent")
        lost = m.NodeState(state="lost", boot=self._boot, protocol=PROTOCOL)
        self.link = Link(
            settings,
            node_client_id(settings, self._node),
            self._loop,
            will=Will(topics.NODE_STATE.at(self._root, node=self._node), lost.encode()),
            on_connected=lambda: self._presence.tell_all(),  # noqa: PLW0108  # the presence is made below
        )
        self._presence = Presence(self.link, self._node, self._boot, partial(current_broker, settings))
        self._name = NameConflict(self._node, self._boot)
        self._dispatcher = Dispatcher(self.link, self._loop, f"node-{self._node}", on_node_state=self._on_node_state)
        blackbox, history = (context.blackbox, context.crash_history) if context else (None, None)
        self._watchdog = Watchdog(blackbox, history, settings.hang_s)
        self._room = PayloadRoom(self._resources.host_mb)
        self._step_server = StepServer(
            settings, self.link, self._loop, self._watchdog, self._room, preparing=self._resources.preparing
        )
        self._loader = Loader(
            self._node,
            self._resources.memory_mb,
            self._resources.threads,
            with_fetched(sources, settings),
            self._on_outcome,
            watchdog=self._watchdog,
            dtype=self._resources.dtype,
            device=self._resources.device,
        )
        self._reports: dict[str, m.ModuleReport] = {}
        self._parts = self._make_parts()
        holds, offer = self._loader.sources.holds, self._presence.offer
        self._named_sources = NamedSources(self.link, self._loop, holds=holds, offer=offer)
        #: modules that crashed earlier processes -> reason; each is reported as failed once instead of being loaded
        self._crashing = dict(history.failed) if history else {}
        self._plan = m.Plan(epoch=0, revision=0)
        self._leaving, self._losses = set[str](), 0  # modules that are being unloaded; losses of the connection
        drain, undrain = self._presence.drain, self._presence.undrain
        self._orders = Orders(settings, self.link, drain=drain, undrain=undrain, measure=self._measure_again)
        raise_limit()
        connections = 2 + len(settings.addresses) if settings.fallback else 1  # of a gateway and a deputy
        self._gateways = Gateways(self._node, self._make_gateway, most_gateways(connections))

    def _make_parts(self) -> PartExchange:
        return PartExchange(
            self._settings,
            self.link,
            self._loop,
            self._loader.sources,
            self._presence,
            load=self._loader.load,
            on_failed=self._on_outcome,
            on_progress=self._reports.__setitem__,
            is_busy=lambda: bool(self._step_server.runner.queues()),
            states=self._dispatcher.routes,
        )

    def start(self) -> None:
        """Connects, measures speed and link, and publishes that the node is ready.

        Raises:
            UnauthorisedError: The broker refused the login.
            BrokerUnreachableError: No broker answered.
        """
        limit_threads(self._resources.threads)
        self._loop.start()
        self.link.start()
        self._step_server.start()
        self._loader.start()
        self._dispatcher.start()
        self._loop.call(partial(self._dispatcher.routes.watch, self._node))
        self.link.on_connection_change(on_disconnect=self._on_connection_lost)
        self._loop.every(_LOAD_S, self._publish_load)
        self._loop.every(self._settings.keepalive_s * m.HEARTBEAT, partial(self._publish_load, idle_too=True))
        self._loop.every(_REPORT_S, self._check_memory)
        self._loop.every(_WATCH_S, self._end_if_hung)
        self._measure(is_first=True)
        self._named_sources.start()
        listen(self.link, topics.PLAN, self._on_plan, node=self._node)
        self._parts.start()
        answer_roll_calls(self.link, self._loop, self._presence.tell_all)
        _log.info("agent_up", node=self._node, boot=self._boot, memory_mb=round(self._resources.memory_mb))

    def _measure(self, *, is_first: bool = False) -> None:
        """Measures speed and link, and publishes the profile. Not in the loop's thread: it waits for messages."""
        speed = link_speed(self.link, f"probe-{self._node}")
        if is_first:  # before anybody knows of the node: orders are not retained
            self._orders.start()
        self._presence.introduce(
            resources=self._resources,
            runtime_mb=self._loader.runtime_mb,
            keepalive_s=self._settings.keepalive_s,
            link_speed=speed,
            with_torch=self._loader.has_room_for_torch,
            gateway=self._settings.gateway,
            most_gateways=self._gateways.most,
            sources=self._loader.sources,
            parts=self._parts.cache if self._parts.is_on else None,
            sleeps=self._settings.sleep_command is not None,
        )

    def _publish_load(self, *, idle_too: bool = False) -> None:
        queues, finished = self._step_server.runner.queues(), self._step_server.take_finished()
        is_loading = any(report.state == "loading" for report in self._reports.values())
        self._orders.look(busy=bool(queues or finished[0] or is_loading))
        self._presence.tell_load(queues, *finished, idle_too=idle_too)

    @property
    def refused(self) -> S2M3Error | None:
        """Why the agent has to end: the broker refused one of its connections, or its name is another agent's too."""
        return self._name.error or self.link.refused or self._gateways.refused

    @property
    def wants_sleep(self) -> bool:
        """Whether the machine is to be put to sleep, once this agent has left in order."""
        return self._orders.wants_sleep

    def _on_connection_lost(self) -> None:
        self._losses += 1
        self._gateways.broker_lost()

    def _on_node_state(self, node: str, state: m.NodeState | None) -> None:
        """Publishes our own state again after something else was published as this node's.

        After `lost` with our boot id, other nodes have taken over our work; with another, it is a late last will.
        """
        if node != self._node:
            self._parts.on_state(node, state)
            return
        self._name.on_state(state)
        if self._name.error is not None:
            self.link.stop(timeout_s=0.0)  # each further takeover would count against the agent that stays
            return
        if state is None or not self._presence.is_denied_by(state):
            return
        if state.state == "lost" and state.boot == self._boot:
            _log.info("taken_for_lost", node=node)
            self._loop.after(_BROKER_STOP_S, partial(self._drop_orphans, self._losses))
        self._presence.tell_state()

    def _drop_orphans(self, losses: int) -> None:
        """Drops orphaned plain requests, unless the connection was lost since: then the broker itself has stopped."""
        if losses == self._losses:
            self._gateways.give_up()

    def _end_if_hung(self) -> None:
        """Ends the process if a module call hangs, as nothing else can stop it; the broker publishes the last will."""
        if (hung := self._watchdog.check()) is not None:
            _log.error("hung", node=self._node, why=hung)
            os._exit(HUNG)

    def drain(self, timeout_s: float, unless: threading.Event) -> None:
        """Stops accepting modules and blocks until the planner has moved ours elsewhere. Not in the loop's thread.

        Args:
            timeout_s: Longest wait, seconds.
            unless: Ends the wait when set.
        """
        self._loop.call(partial(self._presence.drain, leaves=True))
        deadline = time.monotonic() + timeout_s
        while (self._plan.modules or self._plan.gateways or self._leaving) and time.monotonic() < deadline:
            if unless.wait(0.05):
                return

    def stop(self, *, left: bool = False) -> None:
        """Publishes that the node is gone, and ends; `left` if it was drained: then it may be woken."""
        self._gateways.close()
        self._parts.stop()
        self._loader.stop()
        self._step_server.runner.stop()
        # in the loop's thread, behind the call of `drain`: a busy loop would else publish `draining` after this
        self._loop.call(partial(self._presence.change_state, "lost", left=left, asleep=left and self.wants_sleep))
        self.link.stop()
        self._loop.stop()
        _log.info("agent_down", node=self._node)

    def _measure_again(self) -> None:
        with suppress(UnauthorisedError):  # the owner checks `refused`
            self._measure()

    def _on_plan(self, _: str, plan: m.Plan | None) -> None:
        if plan is not None and (plan.epoch, plan.revision) < (self._plan.epoch, self._plan.revision):
            _log.warning("old_plan_refused", node=self._node, epoch=plan.epoch, revision=plan.revision)
            return
        self._plan = plan or m.Plan(epoch=0, revision=0)
        self._follow_plan()

    def _follow_plan(self) -> None:
        wanted, unreadable = {spec.id: spec for spec in self._plan.modules}, self._plan.unreadable
        for module_id in [name for name in self._reports if name not in wanted and name not in unreadable]:
            self._unload(module_id)
        for module_id, why in unreadable.items():
            if module_id not in self._reports:
                error = BadDefinitionError(f"this release cannot read it: {why}", node=self._node)
                self._reports[module_id] = self._presence.failed(module_id, error)
        for module_id, spec in wanted.items():
            if module_id in self._reports or module_id in self._leaving:
                continue
            self._reports[module_id] = m.ModuleReport(state="loading")
            if module_id in self._crashing:
                self._loaded(spec, ModuleFailedError(self._crashing.pop(module_id), node=self._node))
            else:
                self._parts.load(spec)
        self._parts.keep(set(wanted))
        self._gateways.follow(self._plan.gateways, self._plan.deputies)
        self._report()

    def _make_gateway(self, task: str) -> Gateway:
        return Gateway(
            task,
            self._settings,
            self._loop,
            self._dispatcher,
            self.link,
            may_return=self._reread_plan,
            publish_event=self._presence.event,
            watchdog=self._watchdog,
            room=self._room,
        )

    def _reread_plan(self) -> None:
        """Reads the retained plan again after a gateway lost its session; `_on_plan` reconnects it if still named."""
        self.link.unsubscribe(topics.PLAN.at(self._root, node=self._node))
        listen(self.link, topics.PLAN, self._on_plan, node=self._node)

    def _on_outcome(self, spec: ModuleSpec, outcome: Loaded | S2M3Error) -> None:
        """Called in the loader's thread."""
        self._loop.call(lambda: self._loaded(spec, outcome))

    def _loaded(self, spec: ModuleSpec, outcome: Loaded | S2M3Error) -> None:
        if not any(wanted.id == spec.id for wanted in self._plan.modules):
            self._reports.pop(spec.id, None)
            self._loader.forget(spec.id)
        elif isinstance(outcome, NoCapacityError) and self._leaving:
            self._reports.pop(spec.id, None)  # a module that is being unloaded may free enough: `_unloaded` tries again
        elif isinstance(outcome, S2M3Error):
            self._parts.not_loaded(spec.id, outcome)
            self._reports[spec.id] = self._presence.failed(spec.id, outcome)
        else:
            ready = self._parts.noted(spec.id, outcome.report())
            self._step_server.serve(spec.id, outcome.module, on_subscribed=lambda: self._ready(spec.id, ready))
            return
        self._report()

    def _ready(self, module_id: str, report: m.ModuleReport) -> None:
        self._reports[module_id] = report
        self._follow_plan()

    def _unload(self, module_id: str) -> None:
        state = self._reports[module_id].state
        if state == "loading":  # `_loaded` or `_ready` will find that the plan does not name it any more
            return
        del self._reports[module_id]
        if state == "ready":
            self._leaving.add(module_id)
            self._loop.after(_UNLOAD_S, partial(self._step_server.leave, module_id, partial(self._unloaded, module_id)))

    def _unloaded(self, module_id: str) -> None:
        self._leaving.discard(module_id)
        self._loader.forget(module_id)
        _log.info("module_unloaded", node=self._node, module=module_id)
        self._follow_plan()

    def _check_memory(self) -> None:
        if self._pressure.look(rss_mb(), available_mb(), time.monotonic()):
            _log.warning("memory_pressure", node=self._node, gives_up_mb=round(self._pressure.mb))
        if self._pressure.wants:
            self._loader.trim()
        self._report()

    def _report(self) -> None:
        speeds, free_mb, pressure_mb = self._step_server.runner.measured_ms(), self._loader.free_mb, self._pressure.mb
        memory = {"runtime_mb": self._loader.runtime_mb, "free_mb": free_mb, "pressure_mb": pressure_mb}
        memory["host_mb"] = 0.0 if self._resources.device.is_cpu else rss_mb()
        self._presence.report_modules(self._plan, self._reports, speeds, **memory)
