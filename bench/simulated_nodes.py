"""Many nodes in one process, for bench/site.py: they speak the protocol to a real planner and compute nothing.

Each node has a connection with a last will. It publishes its profile, state and report, sends heartbeats, loads what
its plan names (a load takes as long as its bytes at a disk's speed), reports times by a model of its speed, takes over
the sessions of the tasks whose gateway it is, and answers roll calls. Commands come on stdin, a line each:
`start NODE...`, `die NODE...` (the connection is closed as by a crash; the broker publishes the last will).

Run: python bench/simulated_nodes.py --port 1883 --nodes n0,n1,n2 [--reports 50]
"""

import argparse
import random
import sys
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from s2m3 import logs
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.broker.roll_call import answer_roll_calls
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.sessions import TASK_SESSION_S, node_client_id, task_client_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.specs import ModuleSpec

#: Speeds of devices, GFLOP/s, from a small board to a desktop, and the part of them that a model reaches.
_GFLOPS = (8.0, 30.0, 100.0, 400.0)
_EFFICIENCY = 0.3
_DISK_MB_S = 200.0
#: Delay from one node's start to the next one's: each connection is made by a thread of its own.
_STAGGER_S = 0.01
#: Delay before a task's session that was lost is taken over again.
_RETURN_S = 0.5


@dataclass(frozen=True, slots=True)
class Offer:
    """What every simulated node offers: its memory, 10^6 bytes, and the sources and classes that it can load."""

    memory_mb: float
    sources: tuple[str, ...]
    classes: tuple[str, ...]


class SimulatedNode:
    """One node. All methods run in the loop's thread.

    Args:
        name: The node's name.
        settings: Where the broker is.
        loop: The event loop that all nodes of this process share.
        offer: What the node offers.
    """

    def __init__(self, name: str, settings: BrokerSettings, loop: Loop, offer: Offer) -> None:
        self._name, self._settings, self._loop, self._offer = name, settings, loop, offer
        self._rng = random.Random(name)  # noqa: S311  # the same node is the same in each run
        self._gflops = self._rng.choice(_GFLOPS)
        self._latency_ms, self._mbps = round(self._rng.uniform(0.3, 4.0), 2), self._rng.choice((50.0, 100.0, 1000.0))
        self._boot = ""
        self._plan = m.Plan(epoch=0, revision=0)
        self._modules: dict[str, m.ModuleReport] = {}
        self._loads: deque[ModuleSpec] = deque()
        self._is_loading = False
        self._gateways: dict[str, Link] = {}
        self._timers: list[Timer] = []
        self._link: Link | None = None

    def start(self) -> None:
        """Starts the node's process, so to speak: a new boot id, nothing loaded."""
        if self._link is not None:
            return
        self._boot, self._plan = uuid.uuid4().hex, m.Plan(epoch=0, revision=0)
        lost = m.NodeState(state="lost", boot=self._boot, protocol=PROTOCOL)
        self._link = Link(
            self._settings,
            node_client_id(self._settings, self._name),
            self._loop,
            will=Will(topics.NODE_STATE.at(self._settings.root, node=self._name), lost.encode()),
            on_connected=self._publish_all,
        )
        listen(self._link, topics.PLAN, self._on_plan, node=self._name)
        answer_roll_calls(self._link, self._loop, self._publish_all)
        self._link.begin()
        self._timers = [self._loop.every(self._settings.keepalive_s * m.HEARTBEAT, self._beat)]

    def die(self) -> None:
        """Closes all connections without a word, as a crash does."""
        for timer in self._timers:
            timer.cancel()
        for link in (*self._gateways.values(), *([self._link] if self._link else [])):
            link.abort()
        self._link, self._timers = None, []
        self._gateways.clear()
        self._modules.clear()
        self._loads.clear()
        self._is_loading = False

    def report_again(self) -> None:
        """Publishes a report that changes no plan: free memory is a little different, as it always is."""
        if self._link is not None:
            self._report(free_mb=self._free_mb() - self._rng.random())

    def _publish_all(self) -> None:
        profile = m.NodeProfile(
            boot=self._boot,
            version="simulated",
            protocol=PROTOCOL,
            memory_mb=self._offer.memory_mb,
            runtime_mb=0.0,
            gflops=self._gflops,
            latency_ms=self._latency_ms,
            mbps=self._mbps,
            keepalive_s=self._settings.keepalive_s,
            sources=list(self._offer.sources),
            classes=list(self._offer.classes),
        )
        self._publish(topics.NODE_PROFILE, profile)
        self._report()
        self._publish(topics.NODE_STATE, m.NodeState(state="ready", boot=self._boot, protocol=PROTOCOL))

    def _on_plan(self, _: str, plan: m.Plan | None) -> None:
        self._plan = plan or m.Plan(epoch=0, revision=0)
        wanted = {spec.id: spec for spec in self._plan.modules}
        self._modules = {name: report for name, report in self._modules.items() if name in wanted}
        self._loads = deque(spec for spec in self._loads if spec.id in wanted)
        for spec in wanted.values():
            if spec.id not in self._modules:
                self._modules[spec.id] = m.ModuleReport(state="loading")
                self._loads.append(spec)
        self._load_next()
        self._follow_gateways()
        self._report()

    def _load_next(self) -> None:
        """Loads one module after another, as an agent does."""
        if self._loads and not self._is_loading:
            self._is_loading, spec = True, self._loads.popleft()
            self._loop.after(spec.memory_mb / _DISK_MB_S, partial(self._loaded, spec, self._boot))

    def _loaded(self, spec: ModuleSpec, boot: str) -> None:
        if boot != self._boot or self._link is None:
            return
        self._is_loading = False
        if spec.id in self._modules:
            spread = self._rng.uniform(0.8, 1.25)
            self._modules[spec.id] = m.ModuleReport(
                state="ready",
                bytes=int(spec.memory_mb * 1e6),
                memory_mb=spec.memory_mb,
                ms=round(spec.gflops / self._gflops / _EFFICIENCY * spread * 1000, 3),
            )
            self._report()
        self._load_next()

    def _follow_gateways(self) -> None:
        """Takes over the sessions of the tasks whose gateway this node is, as an agent does."""
        if self._link is None:
            return
        wanted = set(self._plan.gateways)
        for task in self._gateways.keys() - wanted:
            self._gateways.pop(task).stop(timeout_s=1.0)
        for task in sorted(wanted - self._gateways.keys()):
            link = self._gateways[task] = Link(
                self._settings,
                task_client_id(self._settings, task),
                self._loop,
                session_expiry_s=TASK_SESSION_S,
                manual_ack=True,
                receive_maximum=1,
                reconnect=False,
                on_ended=partial(self._session_lost, task),
            )
            root = self._settings.root
            link.subscribe(topics.REQUEST.at(root, task=task), _leave, retained=False)
            link.subscribe(topics.REQUEST_INPUT.all(root, task=task), _leave, retained=False)
            link.begin()

    def _session_lost(self, task: str) -> None:
        self._gateways.pop(task, None)
        self._loop.after(_RETURN_S, self._follow_gateways)

    def _beat(self) -> None:
        self._publish(topics.NODE_LOAD, m.NodeLoad(queues={}))

    def _free_mb(self) -> float:
        return self._offer.memory_mb - sum(report.memory_mb for report in self._modules.values())

    def _report(self, *, free_mb: float | None = None) -> None:
        reported = m.Reported(
            boot=self._boot,
            epoch=self._plan.epoch,
            revision=self._plan.revision,
            modules=self._modules,
            free_mb=max(0.0, self._free_mb() if free_mb is None else free_mb),
        )
        self._publish(topics.NODE_REPORTED, reported)

    def _publish(self, path: topics.TopicPath, document: Document) -> None:
        if self._link is not None and self._link.connected:
            topic = path.at(self._settings.root, node=self._name)
            self._link.publish(Outgoing(topic, document.encode(), qos=path.qos, retain=path.retain))


def _leave(_: Message) -> None:
    """Leaves a plain request in the session: a simulated node computes nothing."""


class Fleet:
    """The nodes of this process, and the reports that they publish without news.

    Args:
        names: The nodes.
        settings: Where the broker is.
        offer: What each node offers.
        reports_per_s: Reports without news of all these nodes together, per second.
    """

    def __init__(self, names: Sequence[str], settings: BrokerSettings, offer: Offer, reports_per_s: float) -> None:
        self._loop = Loop("nodes")
        self._nodes = {name: SimulatedNode(name, settings, self._loop, offer) for name in names}
        self._turns = deque(self._nodes.values())
        self._every_s = 1 / reports_per_s if reports_per_s > 0 else None

    def start(self) -> None:
        """Starts all nodes, one shortly after another."""
        self._loop.start()
        for position, node in enumerate(self._nodes.values()):
            self._loop.after(position * _STAGGER_S, node.start)
        if self._every_s is not None:
            self._loop.every(self._every_s, self._report_one)

    def obey(self, line: str) -> None:
        """Carries a command out: `start NODE...` or `die NODE...`."""
        verb, *names = line.split()
        for name in names:
            node = self._nodes[name]
            self._loop.call(node.die if verb == "die" else node.start)

    def _report_one(self) -> None:
        self._turns[0].report_again()
        self._turns.rotate(-1)


def main() -> None:
    """Runs the nodes until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--nodes", required=True, help="their names, with commas")
    parser.add_argument("--memory-mb", type=float, default=1000.0, help="of each node")
    parser.add_argument("--sources", default="none", help="with commas")
    parser.add_argument("--classes", default="noop", help="with commas")
    parser.add_argument("--reports", type=float, default=0.0, help="reports without news per second, of all together")
    options = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    offer = Offer(options.memory_mb, tuple(options.sources.split(",")), tuple(options.classes.split(",")))
    settings = BrokerSettings(host="127.0.0.1", port=options.port)
    fleet = Fleet(options.nodes.split(","), settings, offer, options.reports)
    fleet.start()
    for line in sys.stdin:
        if line.strip():
            fleet.obey(line)


if __name__ == "__main__":
    threading.current_thread().name = "commands"
    main()
