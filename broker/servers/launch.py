"""Starts a broker for the local cluster and the tests: Mosquitto when it is on PATH, else the embedded one."""

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

__all__ = ["Broker", "BrokerKind", "default_kind", "find_mosquitto", "free_port", "port_is_free", "require_broker"]

BrokerKind = Literal["mosquitto", "embedded"]
_START_S = 30.0
_PORTS = (10_240, 32_767)
#: So many ports lie between those of two processes whose ids follow each other.
_APART = 331
_taken = itertools.count()

_MOSQUITTO = """\
per_listener_settings true
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_packet_size {max_bytes}
# Back-pressure is ours (bounded queues that answer `busy`); the broker's limit of 1000 would drop silently before it.
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
    """Returns a port of 127.0.0.1 that nobody listens on now.

    It is none of those that the kernel gives to outgoing connections (on Linux from 32768 up): one of them could have
    it by the time the broker is started, or started again. For the same reason each process takes its ports in turn,
    from a place of its own: two that look at the same time must not find the same.
    """
    first, last = _PORTS
    while True:
        port = first + (os.getpid() * _APART + next(_taken)) % (last - first + 1)
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
    """Returns where Mosquitto is: on PATH, or where Debian puts it, which a user's PATH often lacks; None without."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def default_kind() -> BrokerKind:
    """Returns mosquitto where it is installed, else embedded."""
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
    """A broker process on 127.0.0.1, for this machine only.

    Args:
        kind: Which one.
        port: For MQTT v5; 0 picks a free one.
        port_v3: For MQTT 3.1.1; Mosquitto speaks both on `port`, the embedded broker needs a second (0 picks one).
        ws_port: For the page's MQTT over websockets; 0 picks a free one, None opens none.
        root: What the page may read and ask is under it.
        max_message_bytes: Largest payload.
        folder: For configuration and log; default: one of its own, removed at the end.
        persistence: Whether it remembers over a restart what it was told until it was stopped (Mosquitto only).
    """

    def __init__(
        self,
        kind: BrokerKind,
        *,
        port: int = 0,
        port_v3: int = 0,
        ws_port: int | None = None,
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
        self.page = None if ws_port is None else PageDoor(ws_port or free_port(), root=root)
        self._max_bytes = max_message_bytes + 4_096
        self._own = tempfile.TemporaryDirectory(prefix="s2m3-broker-") if folder is None else None
        self._folder = folder or Path(self._own.name if self._own else ".")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the broker process."""
        if self.process is None:
            raise S2M3Error("the broker was not started")
        return self.process.pid

    def start(self) -> Self:
        """Starts the process and waits until it accepts connections.

        Raises:
            NotInstalledError: This kind of broker is not installed.
            BadInputError: Something listens on one of the ports.
            S2M3Error: It ended, or did not listen in time; its last words are in the text.
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
        """The page's password goes this way: a command line is for everybody to read."""
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
            user=getpass.getuser(),  # started as root it would become another, who may not write there
        )
        config.write_text(text + (self.page.mosquitto(self._folder.absolute()) if self.page else ""))
        return [find_mosquitto() or "mosquitto", "-c", str(config)]

    def stop(self) -> None:
        """Ends the process. Harmless when it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL: as when the power goes."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(5)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._own is not None:
            self._own.cleanup()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
