"""A secured site for tests: `s2m3 secure`'s own folder, the shipped Mosquitto configuration, ports of its own."""

import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.servers.launch import free_port
from s2m3.client import Client
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.settings import AgentSettings
from s2m3.secured.folder import SecuredFolder
from s2m3.snapshot import Site
from tests.broker.test_link import _wait_for
from tests.conftest import WAIT_S

PORTS = (8883, 8884, 8885)


class SecuredSite:
    """Folder and broker. The broker runs as whoever runs the tests; everything else is as it is shipped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        self.ports = {shipped: free_port() for shipped in PORTS}
        #: how much of the log is from before the cluster was started
        self.before = 0
        #: a listener without TLS, as an existing Mosquitto may have beside ours
        self.plain = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        #: login -> its process, of those that `spawn` started
        self.spawned: dict[str, subprocess.Popen[bytes]] = {}
        self._main = folder / "main.conf"
        self._log = folder / "mosquitto.log"
        self._own = folder

    def open(self) -> SecuredFolder:
        return SecuredFolder.open(self.folder)

    def start(self) -> Self:
        own = self.folder / "broker" / "mosquitto.conf"
        text = own.read_text()
        for shipped, port in self.ports.items():
            text = re.sub(rf"^listener {shipped}$", f"listener {port} 127.0.0.1", text, flags=re.MULTILINE)
        user = pwd.getpwuid(os.geteuid()).pw_name
        others = f"listener {self.plain} 127.0.0.1\nallow_anonymous true\nacl_file {self.folder}/broker/acl-others\n"
        self._main.write_text(
            f"user {user}\npersistence_location {self._own}/\nlog_dest stderr\nlog_type all\n{text}{others}"
        )
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["mosquitto", "-c", str(self._main)], stderr=log, stdout=log, env=ENVIRONMENT
            )
        for port in (*self.ports.values(), self.plain):
            _wait_for(port)
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(WAIT_S)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(WAIT_S)

    def restart(self) -> None:
        """Has the broker read its files: not by SIGHUP, after which Debian's 2.0.11 frees sessions twice."""
        self.stop()
        self.start()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def told(self, login: str) -> str:
        """What the process of a login has logged."""
        return (self._own / f"{login}.log").read_text(errors="replace")

    def environment(self, login: str, **changes: str) -> dict[str, str]:
        """What a process of this login is started with: its settings file, and the port of this test."""
        config = self.folder / "logins" / login / "s2m3.toml"
        shipped = 8884 if "password" in config.read_text() else 8883
        port = str(self.ports[shipped])
        return {**ENVIRONMENT, "S2M3_CONFIG": str(config), "S2M3_PORT": port, **changes}

    def settings(self, login: str, **changes: Any) -> AgentSettings:
        before = dict(os.environ)
        os.environ.update(self.environment(login))
        try:
            return AgentSettings.load(**changes)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def run(self, login: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as the user of a login would."""
        command = [sys.executable, "-m", "s2m3", *words]
        env = self.environment(login, **changes)
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False, env=env)

    def spawn(self, login: str, *words: str) -> subprocess.Popen[bytes]:
        with (self._own / f"{login}.log").open("ab") as log:
            self.spawned[login] = python_s2m3(*words, env=self.environment(login), log=log)
        return self.spawned[login]


def restart(running: SecuredSite) -> None:
    """Has the broker of a site with the task `noop` read its files, and waits until everybody is back."""
    running.restart()
    with Site(running.settings("operator")) as seen, Client(settings=running.settings("alice")) as client:
        assert seen.wait(lambda s: s.nodes.ready == {"a", "b"} and s.ready("noop"), WAIT_S), running.log()[-2000:]
        client.ask("noop", left=1, right=2, deadline_s=WAIT_S)


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("S2M3_")} | {
    "PATH": f"{os.environ['PATH']}:/usr/sbin"
}


def python_s2m3(*words: str, env: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "s2m3", *words], stdout=log, stderr=log, env=env)


def secure(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "s2m3", "secure", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )


@contextmanager
def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s2m3-secured-") as name:
        yield Path(name)


@contextmanager
def linked(site: SecuredSite, loop: Loop, login: str, **changes: Any) -> Iterator[Link]:
    link = Link(site.settings(login, **changes), f"test-{login}-{os.urandom(4).hex()}", loop)
    link.start(WAIT_S)
    try:
        yield link
    finally:
        link.stop()


def published(link: Link, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> None:
    """Publishes and waits for the broker's word.

    Raises:
        S2M3Error: It was refused.
    """
    told = threading.Event()
    errors: list[S2M3Error] = []

    def refused(error: S2M3Error) -> None:
        errors.append(error)
        told.set()

    link.publish(Outgoing(topic, payload, retain=retain), on_delivered=told.set, on_refused=refused)
    assert told.wait(WAIT_S)
    for error in errors:
        raise error


def fits(levels: list[str], topic: list[str]) -> bool:
    """Whether a filter matches a topic, or covers another filter."""
    if not levels or not topic:
        return not levels and not topic
    return levels[0] == "#" or (levels[0] in ("+", topic[0]) and fits(levels[1:], topic[1:]))


def ended(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(WAIT_S)
