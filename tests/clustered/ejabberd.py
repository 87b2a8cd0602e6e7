"""Two ejabberd nodes as one cluster: MQTT 5 brokers of Debian that take sessions over and share topics across nodes.

Unlike Mosquitto, a node gives a newcomer none of what was retained at the other node, and every client needs a user
name.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from s2m3.broker.servers.launch import free_port

__all__ = ["EjabberdCluster", "find_ejabberd"]

USER, PASSWORD = "s2m3@localhost", "s2m3"  # any is let in
_START_S = 60.0
_COOKIE = "s2m3test"
_CONFIGURATION = """\
hosts: [localhost]
loglevel: 3
listen: [{{port: {port}, ip: "127.0.0.1", module: mod_mqtt, backlog: 1000}}]
auth_method: anonymous
anonymous_protocol: both
allow_multiple_connections: true
modules:
  mod_mqtt:
    access_publish: {{"#": [{{allow: all}}]}}
    access_subscribe: {{"#": [{{allow: all}}]}}
    max_queue: 20000
    max_topic_depth: 20
"""


def find_ejabberd() -> Path | None:
    """Returns the folder of ejabberd's compiled code; None if it is not installed."""
    if shutil.which("erl") is None:
        return None
    found = sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin"))
    return next((folder for folder in found if (folder / "ejabberd.beam").exists()), None)


class EjabberdCluster:
    """Two broker nodes on 127.0.0.1.

    Args:
        folder: For configurations, databases and logs.
    """

    kind = "ejabberd"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = [free_port(), free_port()]
        self.port = self.port_v3 = self.ports[0]
        self._epmd = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> Self:
        """Starts both nodes, and joins the second one to the first; before them the port mapper, which both need."""
        deadline = time.monotonic() + _START_S
        subprocess.run(["epmd", "-daemon"], env=self._environment(), check=True, timeout=_START_S)
        while not _listens(self._epmd) and time.monotonic() < deadline:
            time.sleep(0.05)
        for number, port in enumerate(self.ports):
            self._processes.append(self._start_node(number, port))
        while not (all(map(_listens, self.ports)) and self._join()):
            if time.monotonic() > deadline:
                logs = [(self._folder / f"n{number}" / "out").read_text()[-1000:] for number in (0, 1)]
                raise RuntimeError("\n".join(logs))
            time.sleep(0.2)
        return self

    def stop(self) -> None:
        """Ends both nodes."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(["epmd", "-kill"], env=self._environment(), capture_output=True, check=False)

    def kill(self, number: int) -> None:
        """Kills one node, as a power cut does."""
        os.killpg(self._processes[number].pid, signal.SIGKILL)
        self._processes[number].wait()

    def cut(self) -> None:
        """Ends the connection of the two nodes and has them refuse one another, as after a lost network."""
        for number in (0, 1):
            self._rpc(number, "erlang", "set_cookie", f"'{self._name(1 - number)}',cut{number}")
        self._rpc(0, "erlang", "disconnect_node", f"'{self._name(1)}'")

    def mend(self) -> None:
        """Lets the two nodes connect again."""
        for number in (0, 1):
            self._rpc(number, "erlang", "set_cookie", f"'{self._name(1 - number)}',{_COOKIE}")
        self._rpc(0, "net_adm", "ping", f"'{self._name(1)}'")

    def _environment(self, number: int | None = None) -> dict[str, str]:
        lib = str((find_ejabberd() or Path()).parent)
        common = {**os.environ, "ERL_EPMD_PORT": str(self._epmd), "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_LIBS": lib}
        own = self._folder / f"n{number}"
        return {
            **common,
            "HOME": str(self._folder),
            "EJABBERD_CONFIG_PATH": str(own / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(own / "ejabberd.log"),
            "ERL_CRASH_DUMP": str(own / "crash"),
        }

    def _start_node(self, number: int, port: int) -> subprocess.Popen[bytes]:
        own = self._folder / f"n{number}"
        own.mkdir(parents=True)
        (own / "ejabberd.yml").write_text(_CONFIGURATION.format(port=port))
        command = [
            *("erl", "-noinput", "-sname", self._name(number), "-setcookie", _COOKIE),
            *("-pa", str(find_ejabberd()), "-mnesia", "dir", f'"{own / "mnesia"}"'),
            *("-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-s", "ejabberd"),
        ]
        with (own / "out").open("wb") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=out, env=self._environment(number), start_new_session=True
            )

    def _name(self, number: int) -> str:
        return f"ej{number}-{self._epmd}@localhost"

    def _join(self) -> bool:
        return self._rpc(1, "ejabberd_admin", "join_cluster", f'<<"{self._name(0)}">>').startswith("ok")

    def _rpc(self, number: int, module: str, function: str, arguments: str) -> str:
        """Calls a function in a node; returns what it returned, as Erlang prints it."""
        call = f"rpc:call('{self._name(number)}', {module}, {function}, [{arguments}])"
        command = [
            *("erl", "-noshell", "-noinput", "-hidden", "-sname", f"ctl-{self._epmd}@localhost", "-setcookie", _COOKIE),
            *("-eval", f'io:format("~p~n",[{call}])', "-s", "init", "stop"),
        ]
        said = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False, timeout=30)
        return said.stdout


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
