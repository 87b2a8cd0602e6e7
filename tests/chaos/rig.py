"""A cluster to break: parties behind proxies, frozen, killed; the broker killed and started again."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import Catalogue, load_catalogue, shipped_folder
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.history import History
from tests.chaos.proxy import Proxy
from tests.frozen import freeze, thaw

_MODELS = Path(__file__).parent / "models"
#: what the planner of a rig knows: the shipped models and those here
CATALOGUE: Catalogue = load_catalogue([*shipped_folder().glob("*.toml"), *_MODELS.glob("*.toml")])
LIGHT = {"a": 150.0, "b": 150.0, "c": 150.0}


class Rig(Cluster):
    """Real processes on a real broker, and the ways to break them; each fault is noted in the history.

    Args:
        kind: Of broker.
        folder: For logs and the history.
        seed: Of the run.
        nodes: Node name -> memory in MB.
        behind: Parties (nodes, `planner`) that reach the broker through a proxy of their own.
        persistence: Whether the broker (Mosquitto) remembers over a restart.
        spare: Whether the planner fills spare memory with second copies.
        planners: How many; the second stands by.
        keepalive_s: Of all processes.
    """

    def __init__(
        self,
        kind: BrokerKind,
        folder: Path,
        seed: int,
        *,
        nodes: Mapping[str, float] = LIGHT,
        behind: tuple[str, ...] = (),
        persistence: bool = False,
        spare: bool = True,
        planners: tuple[str, ...] = ("planner",),
        keepalive_s: int = 5,
    ) -> None:
        super().__init__(nodes, kind=kind, threads=1, folder=folder, persistence=persistence)
        self.history = History(folder / "history.jsonl", seed)
        self.proxies = {name: Proxy(self.broker.port, seed) for name in behind}
        self.ports = {name: proxy.port for name, proxy in self.proxies.items()}
        self._flags = ["--models", str(_MODELS), *([] if spare else ["--no-spare"])]
        self._planners = planners
        self.environment["S2M3_KEEPALIVE_S"] = str(keepalive_s)

    def start(self) -> Self:
        for proxy in self.proxies.values():
            proxy.__enter__()
        return super().start()

    def stop(self) -> None:
        for name in self.processes:
            self.thaw(name)
        super().stop()
        for proxy in self.proxies.values():
            proxy.__exit__()
        self.history.close()

    def start_planner(self) -> None:
        for name in self._planners:
            self._spawn(name, "planner", *self._flags)

    # ---- faults ---------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        self.history.fault(f"SIGKILL {name}")
        super().kill(name)

    def freeze(self, name: str) -> None:
        self.history.fault(f"SIGSTOP {name}")
        freeze(self.processes[name])

    def thaw(self, name: str) -> None:
        if self.processes[name].poll() is None:
            thaw(self.processes[name])

    def pull(self, name: str) -> None:
        self.history.fault(f"cable of {name} pulled")
        self.proxies[name].half_open()

    def restart_broker(self, *, away_s: float = 0.5, gently: bool = False) -> None:
        """Ends the broker and starts it again on the same ports."""
        self.history.fault("broker ends")
        if gently:
            self.broker.stop()
        else:
            self.broker.kill()
        threading.Event().wait(away_s)
        self.broker.start()
        self.history.fault("broker is back")

    # ---- what is asked of it ----------------------------------------------------------------------------------------

    def add(self, site: Site, task: str, spec: m.TaskSpec, timeout_s: float = WAIT_S) -> None:
        """Adds a task and waits until it is ready, its door too."""
        add_task(site, task, spec)
        assert site.wait(lambda s: s.ready(task) and gateway_of(s, task) is not None, timeout_s), self.log("planner")


def place_by_hand(site: Site, model_id: str, at: Mapping[str, list[str]]) -> None:
    """Says what each node holds, in the planner's place, and the model's route once they do.

    Args:
        site: Of a rig without planners.
        model_id: The task's name too.
        at: Step -> nodes.
    """
    model, modules = CATALOGUE.models[model_id], CATALOGUE.modules
    nodes = {node for held in at.values() for node in held}
    for node in nodes:
        held = [modules[step.module] for name, step in model.steps.items() if node in at[name]]
        site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=held).encode(), node=node)
    assert site.wait(lambda s: all(node in s.nodes.ready and _holds_all(s, node) for node in nodes), WAIT_S)
    steps = {
        name: m.RouteStep(
            module=step.module,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(name)),
            replicas=[m.Replica(node=node, ms=1) for node in at[name]],
        )
        for name, step in model.steps.items()
    }
    doc = m.RouteDoc(
        epoch=1, revision=1, model=model.id, inputs=model.inputs, answer=model.answer, deadline_s=WAIT_S, steps=steps
    )
    site.publish(topics.ROUTE, doc.encode(), task=model.id)


def _holds_all(site: Site, node: str) -> bool:
    """Of its own process: what the one before it reported is no more."""
    reported = site.reported.get(node)
    if reported is None or reported.boot != site.nodes.boot(node):
        return False
    wanted = {spec.id for spec in site.plans[node].modules}
    return all(id_ in reported.modules and reported.modules[id_].state == "ready" for id_ in wanted)


def gateway_of(site: Site, task: str) -> str | None:
    return next((node for node, plan in site.plans.items() if task in plan.gateways), None)


def holders_of(site: Site, task: str) -> set[str]:
    return {r.node for step in site.routes[task].steps.values() for r in step.replicas} & site.nodes.present


def seconds_until(site: Site, until: Callable[[Site], bool], timeout_s: float = WAIT_S) -> float:
    """Returns how long it took until something held of the site."""
    began = time.monotonic()
    assert site.wait(until, timeout_s)
    return time.monotonic() - began
