"""One simulated site, for bench/site.py: a broker, the real planner, simulated nodes, and what is measured of them."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from planning import MODULE_MB, SOURCES, definition
from site_observer import Observer

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics

__all__ = ["REPORTS_PER_S", "Size", "measure", "simulation"]

#: Reports without news, of all nodes together.
REPORTS_PER_S = 50.0
_NODES_PER_PROCESS = 250
_WAIT_S = 300.0
#: Losses of single nodes, one after another.
_LOSSES = 3
#: Tasks that measured requesters use: none, a few, and as many more as the site has.
_USED = (0, 10, 100, 1_000)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a site is. A quarter of the modules are heads, each shared by several tasks.

    On a scarce site each node has room for one module: of more modules than nodes, those of some tasks do not fit.
    """

    nodes: int
    tasks: int
    modules: int
    is_scarce: bool = False

    @property
    def encoders(self) -> int:
        """Of the modules, those that are encoders: there is a head for every three."""
        return self.modules * 3 // 4

    @property
    def memory_mb(self) -> float:
        """Memory of each node: three times what all modules take, and room for a few in any case; unless scarce."""
        if self.is_scarce:
            return MODULE_MB * 1.5
        return MODULE_MB * (3 * self.modules / self.nodes + 6)


class Nodes:
    """The processes of simulated nodes.

    Args:
        size: Of the site.
        port: Of the broker.
        reports_per_s: Reports without news, of all nodes together.
    """

    def __init__(self, size: Size, port: int, reports_per_s: float) -> None:
        self.port, self.names = port, [f"n{n}" for n in range(size.nodes)]
        blocks = [self.names[at : at + _NODES_PER_PROCESS] for at in range(0, len(self.names), _NODES_PER_PROCESS)]
        self._process_of = {name: block for block, names in enumerate(blocks) for name in names}
        script = str(Path(__file__).with_name("simulated_nodes.py"))
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, script, "--port", str(port), "--nodes", ",".join(names)),
                    *("--memory-mb", str(size.memory_mb), "--sources", ",".join(SOURCES)),
                    *("--reports", str(reports_per_s / len(blocks))),
                ],
                stdin=subprocess.PIPE,
            )
            for names in blocks
        ]

    def tell(self, verb: str, names: Sequence[str]) -> None:
        """Has nodes `die` or `start`."""
        for block, process in enumerate(self._processes):
            if (mine := [name for name in names if self._process_of[name] == block]) and process.stdin is not None:
                process.stdin.write(f"{verb} {' '.join(mine)}\n".encode())
                process.stdin.flush()

    def stop(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


class Simulation:
    """One site while it is measured.

    Args:
        size: Of the site.
        planner: The planner's process.
        nodes: The simulated nodes.
        seen: What is seen of the site.
        quiet_s: After so long without a new route or plan, what was changed counts as done.
        improved_s: The same after tasks were added: by then the planner has looked for better places.
    """

    def __init__(
        self, size: Size, planner: psutil.Process, nodes: Nodes, seen: Observer, *, quiet_s: float, improved_s: float
    ) -> None:
        self._size, self._planner, self._nodes, self._seen = size, planner, nodes, seen
        self._quiet_s, self._improved_s = quiet_s, improved_s
        #: tasks whose route named a node that was lost: their second copies come later
        self._concerned: set[str] = set()
        self.figures: dict[str, Any] = {}

    def join(self) -> None:
        """Waits for all nodes."""
        began = time.monotonic()
        self._note("joined", self._seen.wait(lambda: len(self._seen.nodes.ready) == self._size.nodes, _WAIT_S))
        self.figures["join_s"] = _since(began)

    def add_all(self) -> None:
        """Adds all tasks in one go."""
        cpu, began = self._cpu_s(), time.monotonic()
        tasks = {f"t{number}" for number in range(self._size.tasks)}
        for number in range(self._size.tasks):
            self._add(number)
        self._note("all_ready", self._seen.wait(lambda: self._seen.all_served(tasks), _WAIT_S))
        self.figures["all_ready_s"] = _since(began)
        self.figures["not_placed"] = len(self._seen.without_room())
        self._settle(self._improved_s)
        self.figures["all_ready_cpu_s"] = round(self._cpu_s() - cpu, 2)

    def rest(self, seconds: float) -> None:
        """Measures the planner while nothing changes."""
        cpu, changes, began = self._cpu_s(), len(self._seen.changes), time.monotonic()
        self._seen.wait(lambda: False, seconds)
        self.figures["idle_cpu_share"] = round((self._cpu_s() - cpu) / (time.monotonic() - began), 4)
        self.figures["idle_routes_published"] = len(self._seen.changes) - changes

    def add_one(self) -> None:
        """Adds one task more, of modules that the site holds."""
        served = (number for number in range(self._size.tasks) if self._seen.served(f"t{number}"))
        like = next(served) if self._size.is_scarce else None
        cpu, began, task = self._cpu_s(), time.monotonic(), f"t{self._size.tasks}"
        self._add(self._size.tasks, like)
        self._note("one_task", self._seen.wait(lambda: task in self._seen.routes, _WAIT_S))
        self.figures["one_task_route_s"] = _since(began)
        self._note("one_task", self._seen.wait(lambda: self._seen.served(task), _WAIT_S))
        self.figures["one_task_ready_s"] = _since(began)
        self._settle(self._quiet_s)
        self.figures["one_task_cpu_above_rest_s"] = self._above_rest(cpu, began)
        self._settle(self._improved_s)

    def lose(self, count: int) -> dict[str, Any]:
        """Has nodes that hold modules die; returns how long the last route that named one of them took to change."""
        seen = self._seen
        holding = set[str]().union(*seen.named.values()) & seen.nodes.present
        dying = [name for name in self._nodes.names if name in holding][:count]
        gone = frozenset(dying)
        named, cpu, before, began = seen.naming(gone), self._cpu_s(), len(seen.changes), time.monotonic()
        self._nodes.tell("die", dying)
        in_time = seen.wait(lambda: gone <= seen.nodes.lost and not seen.naming(gone), _WAIT_S)
        self._note(f"lost_{count}", in_time)
        noticed = min(seen.lost_at[name] for name in dying)
        changed: dict[str, float] = {}
        for when, task, nodes in seen.changes[before:]:
            if not nodes & gone:
                changed.setdefault(task, when)
        took_s = max((changed[task] for task in named if task in changed), default=noticed) - noticed
        self._note(f"lost_{count}", seen.wait(self._are_all_served, _WAIT_S))
        ready_s = time.monotonic() - noticed
        self._settle(self._quiet_s)
        self._concerned |= named
        others = {task for _, task, _ in seen.changes[before:]} - self._concerned
        return {
            "routes_changed_s": round(took_s, 3),
            "all_ready_again_s": round(ready_s, 3),
            "routes_named": len(named),
            "other_routes_changed": len(others),
            "cpu_s": round(self._cpu_s() - cpu, 2),
            "cpu_above_rest_s": self._above_rest(cpu, began),
        }

    def requesters(self) -> list[dict[str, Any]]:
        """Returns what requesters take that use no task, a few tasks, and many."""
        script, found = str(Path(__file__).with_name("requester.py")), []
        for used in (count for count in _USED if count <= self._size.tasks):
            tasks = ",".join(f"t{number}" for number in range(used))
            command = [sys.executable, script, "--port", str(self._nodes.port), "--tasks", tasks]
            found.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
        return found

    def end(self) -> None:
        """Notes the planner's memory, its losses of the connection, and the sizes of documents."""
        status = Path(f"/proc/{self._planner.pid}/status").read_text(encoding="utf-8")
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
        self.figures |= {
            "planner_mb": round(self._planner.memory_info().rss / 1e6),
            "planner_peak_mb": round(int(peak) * 1024 / 1e6),
            "planner_offline": self._seen.offline,
            "largest_document_bytes": dict(self._seen.largest),
            "document_bytes": dict(self._seen.bytes),
        }

    def _add(self, number: int, like: int | None = None) -> None:
        """Adds a task, of the modules of another one if that is given."""
        model = number if like is None else like
        spec = m.TaskSpec(model=f"m{model}", definition=definition(model, self._size.encoders))
        self._seen.publish(topics.TASK, spec.encode(), task=f"t{number}")

    def _are_all_served(self) -> bool:
        return self._seen.all_served(set(self._seen.routes))

    def _settle(self, quiet_s: float) -> None:
        self._note("quiet", self._seen.wait_quiet(quiet_s, _WAIT_S))

    def _cpu_s(self) -> float:
        times = self._planner.cpu_times()
        return float(times.user + times.system)

    def _above_rest(self, cpu_s: float, began: float) -> float:
        """Returns the planner's CPU since then, less what it takes at rest in the same time, seconds."""
        rest_s = float(self.figures.get("idle_cpu_share", 0.0)) * (time.monotonic() - began)
        return round(self._cpu_s() - cpu_s - rest_s, 2)

    def _note(self, what: str, in_time: bool) -> None:  # noqa: FBT001  # the answer to "was it in time"
        if not in_time:
            self.figures.setdefault("not_in_time", []).append(what)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


@contextmanager
def simulation(
    size: Size, *, reports_per_s: float, kind: BrokerKind = "mosquitto", quiet_s: float = 8.0, improved_s: float = 90.0
) -> Iterator[Simulation]:
    """Starts broker, planner and nodes of a site of some size, and ends them."""
    with tempfile.TemporaryDirectory(prefix="s2m3-site-") as folder:
        cluster = Cluster({}, kind=kind, folder=Path(folder))
        with cluster, Observer(cluster.settings) as seen:
            nodes = Nodes(size, cluster.settings.port, reports_per_s)
            try:
                planner = psutil.Process(cluster.processes["planner"].pid)
                yield Simulation(size, planner, nodes, seen, quiet_s=quiet_s, improved_s=improved_s)
            finally:
                nodes.stop()


def measure(size: Size, *, reports_per_s: float = REPORTS_PER_S, idle_s: float = 60.0) -> dict[str, Any]:
    """Returns the figures of one size."""
    with simulation(size, reports_per_s=reports_per_s) as site:
        site.join()
        site.add_all()
        site.rest(idle_s)
        site.figures["requesters"] = site.requesters()
        site.add_one()
        site.figures["one_lost"] = [site.lose(1) for _ in range(_LOSSES)]
        site.figures["many_lost"] = {"nodes": size.nodes // 10, **site.lose(size.nodes // 10)}
        site.end()
        return site.figures
