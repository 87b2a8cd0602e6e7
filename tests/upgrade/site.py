"""A site of two releases: each process runs the code of the tree that it is started from."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from tests.chaos import WAIT_S

__all__ = ["NEW", "NODES", "Mixed", "run_in"]

#: today's code
NEW = Path(__file__).parents[2]
NODES = {"a": 150.0, "b": 150.0, "c": 150.0}


class Mixed(Cluster):
    """Real processes, each of the release that `trees` names; at first, all of the old one.

    Args:
        kind: Of broker.
        folder: For the logs.
        old: The old release's tree.
    """

    def __init__(self, kind: BrokerKind, folder: Path, old: Path) -> None:
        super().__init__(NODES, kind=kind, threads=1, folder=folder)
        self.trees: dict[str, Path] = dict.fromkeys(["planner", *NODES], old)

    def _spawn(self, name: str, command: str, *flags: str) -> None:
        """As a user of that release does: `python -m` takes what is in the folder where it runs."""
        where = ["--host", self.settings.host, "--port", str(self.settings.port)]
        if self.trees[name] != NEW and "--parts" in flags:  # the old release has no such flag
            at = flags.index("--parts")
            flags = (*flags[:at], *flags[at + 2 :])
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "s2m3", command, *where, *flags],
                cwd=self.trees[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self.trees[name]),
            )

    def upgrade(self, name: str, site: Site) -> None:
        """Ends one process as an upgrade does, and starts today's in its place; returns when it does its work."""
        boot = site.nodes.boot(name)
        self.processes[name].terminate()
        self.processes[name].wait(WAIT_S)
        self.trees[name] = NEW
        if name == "planner":
            epoch = site.planner.epoch if site.planner is not None else 0
            self.start_planner()
            assert site.wait(lambda s: _plans_anew(s, epoch), WAIT_S), self.log("planner")
        else:
            self.start_agent(name)
            assert site.wait(lambda s: _is_back(s, name, boot), WAIT_S), self.log(name)

    def words(self, *names: str) -> str:
        """Returns what these processes have logged, one after the other."""
        return "\n".join(self.log(name) for name in names)


def _plans_anew(site: Site, epoch: int) -> bool:
    planner = site.planner
    return planner is not None and planner.state == "online" and planner.epoch > epoch and site.ready("noop")


def _is_back(site: Site, node: str, boot: str | None) -> bool:
    """Its new process follows a plan, and the site is whole: all three are ready, the task has a gateway."""
    reported = site.reported.get(node)
    follows = reported is not None and reported.boot == site.nodes.boot(node) != boot and reported.epoch > 0
    has_gateway = any("noop" in plan.gateways for plan in site.plans.values())
    return follows and site.nodes.ready == NODES.keys() and site.ready("noop") and has_gateway


def environment(tree: Path) -> dict[str, str]:
    """Returns the environment of a process of a tree; settings of the user's own are for the user's own site."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("S2M3_")}
    return {**ours, "PYTHONPATH": str(tree)}


def run_in(tree: Path, *words: str, given: bytes | None = None) -> Any:
    """Runs Python in a tree; returns the finished process."""
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=tree, env=environment(tree), input=given, capture_output=True, timeout=WAIT_S, check=False
    )
