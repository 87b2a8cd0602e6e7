"""Starts a broker process for the local cluster and the tests: Mosquitto if it is installed, else the embedded one."""

import getpass
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from s2m3.broker.servers.websocket import PASSWORD_VARIABLE, PageDoor
from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError, NotInstalledError, S2M3Error
from s2m3.schemas.roles import Role

__all__ = ["Broker", "BrokerKind", "default_kind", "find_mosquitto", "free_port", "port_is_free", "require_broker"]

BrokerKind = Literal["mosquitto", "embedded"]
_START_S = 30.0
_PORTS = (10_240, 32_767)
#: Distance between the first ports of processes with consecutive ids.
_PID_STRIDE = 331
_port_numbers = itertools.count()

_MOSQUITTO = """\
per_listener_settings true
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_packet_size {max_bytes}
# Agents apply back-pressure (bounded queues that answer `busy`); with the default of 1000, Mosquitto drops silently.
max_queued_messages 20000
max_inflight_messages 100
persistence {persistence}
persistence_location {folder}/
user {user}
log_dest stderr
log_type error
log_type warning
"""


def free_port() -> int:
    """Returns a port of 127.0.0.1 that is free now.

    The port is below the kernel's ephemeral range (on Linux from 32768), so that no outgoing connection can take it
    before the broker starts or restarts. Each process counts up from a start derived from its process id, so that two
    processes that search at the same time find different ports.
    """
    first, last = _PORTS
    while True:
        port = first + (os.getpid() * _PID_STRIDE + next(_port_numbers)) % (last - first + 1)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def port_is_free(port: int) -> bool:
    """Returns whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier server may linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def find_mosquitto() -> str | None:
    """Returns Mosquitto's path, from PATH or Debian's sbin folders (often not on a user's PATH); None if absent."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def default_kind() -> BrokerKind:
    """Returns `mosquitto` if Mosquitto is installed, else `embedded`."""
    return "mosquitto" if find_mosquitto() else "embedded"


def require_broker(kind: BrokerKind) -> None:
    """Checks that a kind of broker is installed.

    Raises:
        NotInstalledError: It is not; the text says what brings it, or what else would do.
    """
    if kind == "mosquitto" and find_mosquitto() is None:
        raise NotInstalledError("mosquitto is not installed (Debian: apt install mosquitto)")
    if kind == "embedded" and extras.missing("broker"):
        other = "" if find_mosquitto() else "; or install mosquitto (Debian: apt install mosquitto)"
        raise NotInstalledError(f"the embedded broker needs iotcore: {extras.install_command(['broker'])}{other}")


class Broker:
    """A broker process that listens on 127.0.0.1 only.

    Args:
        kind: `mosquitto` or `embedded`.
        port: Port for MQTT v5; 0 picks a free one.
        port_v3: Port for MQTT 3.1.1. Mosquitto serves both on `port`; the embedded broker needs another (0 picks one).
        ws_port: Port for the page's MQTT over WebSockets; 0 picks a free one, None opens none.
        page_role: What the page's login may (PageDoor); the embedded broker has no access lists.
        root: First levels of the topics that the page may read and publish on.
        max_message_bytes: Largest payload.
        folder: Folder for configuration and log; None makes a temporary one, removed when the context ends.
        persistence: Whether sessions and retained messages survive a restart (Mosquitto only).

    Raises:
        S2M3Error: Persistence was requested from the embedded broker.
    """

    def __init__(
        self,
        kind: BrokerKind,
        *,
        port: int = 0,
        port_v3: int = 0,
        ws_port: int | None = None,
        page_role: Role = "viewer",
        root: str = "s2m3/v1",
        max_message_bytes: int = 32_000_000,
        folder: Path | None = None,
        persistence: bool = False,
    ) -> None:
        if persistence and kind == "embedded":
            raise S2M3Error("the embedded broker keeps everything in memory: persistence needs mosquitto")
        self.kind = kind
        self._persistence = persistence
        self.port = port or free_port()
        self.port_v3 = self.port if kind == "mosquitto" else (port_v3 or free_port())
        self.page = None if ws_port is None else PageDoor(ws_port or free_port(), root=root, role=page_role)
        self._max_bytes = max_message_bytes + 4_096
        self._temporary = tempfile.TemporaryDirectory(prefix="s2m3-broker-") if folder is None else None
        self._folder = folder or Path(self._temporary.name if self._temporary else ".")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the broker."""
        if self.process is None:
            raise S2M3Error("the broker was not started")
        return self.process.pid

    def start(self) -> Self:
        """Starts the process and waits until it accepts connections.

        Raises:
            NotInstalledError: This kind of broker is not installed.
            BadInputError: Something listens on one of the ports.
            S2M3Error: The process ended, or did not listen in time; the text holds the end of its log.
        """
        require_broker(self.kind)
        if taken := sorted(port for port in self._ports() if not port_is_free(port)):
            raise BadInputError(f"port {taken[0]} of 127.0.0.1 is taken, by another broker perhaps")
        log = self._folder / "broker.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603  # a broker, by its path
                self._command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._environment()
            )
        deadline = time.monotonic() + _START_S
        while not all(_listens(port) for port in self._ports()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise S2M3Error(f"the {self.kind} broker did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.02)
        return self

    def _ports(self) -> set[int]:
        return {self.port, self.port_v3} | ({self.page.port} if self.page else set())

    def _environment(self) -> dict[str, str] | None:
        """Returns the environment with the page's password, which must not be on the command line: all users see it."""
        return {**os.environ, PASSWORD_VARIABLE: self.page.password} if self.page else None

    def _command(self) -> list[str]:
        if self.kind == "embedded":
            ports = ["--port", str(self.port), "--port-v3", str(self.port_v3)]
            if self.page is not None:
                ports += ["--port-ws", str(self.page.port)]
            limits = ["--max-bytes", str(self._max_bytes), "--folder", str(self._folder.absolute())]
            return [sys.executable, "-m", "s2m3.broker.servers.embedded", *ports, *limits]
        config = self._folder / "mosquitto.conf"
        text = _MOSQUITTO.format(
            port=self.port,
            max_bytes=self._max_bytes,
            persistence=str(self._persistence).lower(),
            folder=self._folder.absolute(),
            user=getpass.getuser(),  # if started as root, Mosquitto would switch to a user without access to the folder
        )
        config.write_text(text + (self.page.mosquitto(self._folder.absolute()) if self.page else ""))
        return [find_mosquitto() or "mosquitto", "-c", str(config)]

    def stop(self) -> None:
        """Terminates the process and waits for it; kills it after 5 s. No effect if it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kills the process (SIGKILL), as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(5)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
