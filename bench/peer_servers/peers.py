"""Each peer as an object: starts its processes, asks them, says what memory they hold, and has one of them killed."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import paho.mqtt.client as paho
import psutil
import urllib3
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from peer_servers.inputs import Asked
from peer_servers.modules import TASKS
from s2m3.broker.servers.launch import Broker, default_kind, free_port
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.demo import DEMO_NODES
from s2m3.schemas import messages as m
from s2m3.snapshot import Site

__all__ = ["FastApi", "Light", "MqttWorkers", "Ours", "Peer", "RayServe"]

_BENCH = Path(__file__).parents[1]
_READY_S, _HEALTHY_S, _ASK_S = 180.0, 5.0, 60.0
#: Budget of an agent without torch: all modules have room in each.
_LIGHT_MB = 900.0


class Peer(Protocol):
    """A system under test. As a context manager it is started, and answers all tasks when it is entered."""

    name: str
    #: Seconds after which a request without a reply has failed.
    patience_s: float

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def ask(self, task: str, asked: Asked) -> Any:
        """Returns the answer of one request; called from many threads. Raises an exception where there is none."""

    def roots(self) -> list[psutil.Process]:
        """Returns the processes whose trees are the system."""

    def victim(self) -> psutil.Process:
        """Returns the process to kill: one that classification needs. Another is started in its place."""


def _await(ready: Callable[[], bool]) -> None:
    """Waits until a function returns true.

    Raises:
        RuntimeError: It took too long.
    """
    deadline = time.monotonic() + _READY_S
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready after {_READY_S:g} s")
        time.sleep(0.1)


class _Process:
    """A server process that is started again as soon as it has ended, as systemd would with Restart=always."""

    def __init__(self, words: list[str], environment: dict[str, str], log: Path) -> None:
        self._words, self._log = words, log
        self._environment = {**os.environ, **environment}
        self._stopped = threading.Event()
        self.process = self._start()
        self._watch = threading.Thread(target=self._keep, daemon=True)
        self._watch.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(self._words, stdout=log, stderr=log, env=self._environment, cwd=_BENCH)

    def _keep(self) -> None:
        while not self._stopped.is_set():
            self.process.wait()
            if not self._stopped.is_set():
                self.process = self._start()

    def tree(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def stop(self) -> None:
        self._stopped.set()
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = self.tree()
            for process in [*tree.children(recursive=True), tree]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._watch.join()


@dataclass(frozen=True, slots=True)
class Light:
    """Agents without torch.

    Args:
        exports: Folder of their exported parts.
        agents: How many.
    """

    exports: Path
    agents: int


class Ours:
    """S2M3: three agents, or agents without torch; a planner and a broker.

    Args:
        threads: Compute threads of each agent.
        tasks: The tasks that are added.
        light: Agents without torch in place of the three.
    """

    def __init__(self, threads: int, tasks: Iterable[str] = TASKS, light: Light | None = None) -> None:
        self._threads, self._tasks, self._light = threads, tuple(tasks), light
        what = "3 agents" if light is None else f"agents on ONNX Runtime: {light.agents}"
        self.name = f"S2M3, {what}, threads of each: {threads}"
        self.patience_s = _ASK_S

    def __enter__(self) -> Self:
        if self._light is None:
            self._cluster = Cluster(DEMO_NODES, threads=self._threads)
        else:
            nodes = {f"light-{number}": _LIGHT_MB for number in range(self._light.agents)}
            self._cluster = Cluster(nodes, threads=self._threads, runtime="onnx")
            self._cluster.environment["S2M3_EXPORTS"] = str(self._light.exports)
        with contextlib.ExitStack() as started:
            started.enter_context(self._cluster)
            site = started.enter_context(Site(self._cluster.settings))
            self._client = started.enter_context(Client(settings=self._cluster.settings))
            for task in self._tasks:
                add_task(site, task, m.TaskSpec(model=task, deadline_s=_ASK_S))
            if not site.wait(lambda seen: all(seen.ready(task) for task in self._tasks), _READY_S):
                raise RuntimeError("not ready")
            self._started = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def ask(self, task: str, asked: Asked) -> Any:
        """Asks with a Client."""
        inputs: dict[str, Any] = {TASKS[task]: asked.file} | ({"text": list(asked.texts)} if asked.texts else {})
        answer = self._client.ask(task, deadline_s=self.patience_s, **inputs)
        self._route = answer.route
        return answer.value

    def roots(self) -> list[psutil.Process]:
        """Returns agents, planner and broker."""
        pids = [process.pid for process in self._cluster.processes.values()]
        return [psutil.Process(pid) for pid in [*pids, self._cluster.broker.pid]]

    def victim(self) -> psutil.Process:
        """Returns the agent that encoded the last picture; its supervisor starts it again."""
        supervisor = psutil.Process(self._cluster.processes[self._route["vision"]].pid)
        return (supervisor.children() or [supervisor])[0]


class _Http:
    """A peer behind HTTP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.patience_s = _ASK_S
        self._port = free_port()
        self._pool = urllib3.PoolManager(maxsize=64, retries=False)

    def ask(self, task: str, asked: Asked) -> Any:
        """Posts a form with the file and the texts."""
        fields: list[Any] = [("file", ("file", asked.file)), *(("text", text) for text in asked.texts)]
        url = f"http://127.0.0.1:{self._port}/ask/{task}"
        found = self._pool.request("POST", url, fields=fields, timeout=self.patience_s)
        if found.status != 200:  # noqa: PLR2004
            raise RuntimeError(f"HTTP {found.status}: {found.data[:200]!r}")
        return found.json()["value"]

    def _start(self, words: list[str], environment: dict[str, str], log: str) -> Self:
        self._server = _Process(words, environment, self._folder / log)
        with contextlib.ExitStack() as started:
            started.callback(self._server.stop)
            _await(self._healthy)
            started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def roots(self) -> list[psutil.Process]:
        """Returns the server, whose children are all of the peer."""
        return [self._server.tree()]

    def _healthy(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self._port}/health"
            return self._pool.request("GET", url, timeout=_HEALTHY_S).status == 200  # noqa: PLR2004
        except urllib3.exceptions.HTTPError:
            return False


class FastApi(_Http):
    """One FastAPI process with all models, in torch or in ONNX Runtime and faster-whisper."""

    def __init__(self, folder: Path, peers: Path, onnx: Path | None, threads: int | None = None) -> None:
        super().__init__(folder)
        self.name = "FastAPI, torch" if onnx is None else "FastAPI, ONNX Runtime and faster-whisper int8"
        self._environment = {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(peers)])}
        if onnx is not None:
            self._environment["PEER_ONNX"] = str(onnx)
        if threads is not None:
            self._environment |= dict.fromkeys(("PEER_THREADS", "OMP_NUM_THREADS"), str(threads))

    def __enter__(self) -> Self:
        words = [sys.executable, "-m", "uvicorn", "peer_servers.fastapi_app:app", "--port", str(self._port)]
        return self._start([*words, "--log-level", "warning"], self._environment, "fastapi.log")

    def victim(self) -> psutil.Process:
        """Returns the server."""
        return self._server.tree()


class RayServe(_Http):
    """Ray Serve: a deployment for each network, and an ingress."""

    name = "Ray Serve, composition"

    def __init__(self, folder: Path, peers: Path) -> None:
        super().__init__(folder)
        self._environment = {
            "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(_BENCH), str(peers)]),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> Self:
        words = [sys.executable, "-m", "peer_servers.ray_app", str(self._port)]
        return self._start(words, self._environment, "ray.log")

    def victim(self) -> psutil.Process:
        """Returns the replica of the picture encoder; Ray starts it again."""
        for process in self._server.tree().children(recursive=True):
            if "Vision" in " ".join(process.cmdline()):
                return process
        raise RuntimeError("no replica of Vision")


class MqttWorkers:
    """A worker process for each model on a broker; nothing is shared between models."""

    name = "MQTT, a worker per model"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, Future[Any]] = {}
        self._ready: set[str] = set()
        self._workers: dict[str, _Process] = {}
        self.patience_s = _ASK_S
        self._inbox = f"peer/client/{uuid.uuid4().hex}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as started:
            self._broker = Broker(default_kind())
            self._broker.start()
            started.callback(self._broker.stop)
            self._connect()
            started.callback(self._disconnect)
            port = str(self._broker.port)
            for task in TASKS:
                words = [sys.executable, "-m", "peer_servers.mqtt_worker", port, task]
                self._workers[task] = _Process(words, {}, self._folder / f"mqtt-{task}.log")
                started.callback(self._workers[task].stop)
            _await(lambda: self._ready == TASKS.keys())
            self._started = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def _connect(self) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", self._broker.port)
        for topic in (self._inbox, "peer/+/ready"):
            self._client.subscribe(topic, qos=1)
        self._client.loop_start()

    def _disconnect(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/ready"):
            self._ready.add(message.topic.split("/")[1])
            return
        answer = json.loads(message.payload)
        waiting = self._waiting.pop(answer["id"], None)
        if waiting is not None:
            waiting.set_result(answer["value"])

    def ask(self, task: str, asked: Asked) -> Any:
        """Publishes a request and waits for its reply; nobody sends it again where the worker died with it."""
        number = uuid.uuid4().hex
        future = self._waiting[number] = Future()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self._inbox
        body = {"id": number, "file": base64.b64encode(asked.file).decode(), "text": asked.texts}
        self._client.publish(f"peer/{task}", json.dumps(body), qos=1, properties=properties)
        try:
            return future.result(self.patience_s)
        finally:
            self._waiting.pop(number, None)

    def roots(self) -> list[psutil.Process]:
        """Returns the workers and the broker."""
        return [*(worker.tree() for worker in self._workers.values()), psutil.Process(self._broker.pid)]

    def victim(self) -> psutil.Process:
        """Returns the worker of classification."""
        return self._workers["classification"].tree()
