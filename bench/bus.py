"""Latency overhead of the pipeline: client -> 2 no-op encoders -> head -> client, against the same hops in bare paho.

Both run on the same broker with QoS 1, TCP_NODELAY, a process per party and one request at a time, in alternating
blocks of 50 requests, so that drift of the machine affects both. Prints the ratio of medians and writes JSON.
Run: python bench/bus.py [--rounds N] [--json FILE]
"""

import argparse
import json
import multiprocessing
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tables import measured_on

from s2m3 import logs
from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.snapshot import Site

_BLOCK = 50
_WARM_UP = 50
_SIZES = {"1 KB": (1_000, 1_000), "100 KB": (100_000, 4_000)}
_WAIT_S = 10.0
_READY_S = 30.0


def _no_delay(_c: paho.Client, _u: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bare_client(port: int, name: str) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    client.on_socket_open = _no_delay
    client.connect("127.0.0.1", port)
    return client


def _properties(message: paho.MQTTMessage) -> Properties:
    sent = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    sent.CorrelationData = message.properties.CorrelationData  # type: ignore[union-attr]
    return sent


def _encoder(port: int, side: str, between: int, ready: Event) -> None:
    """Runs a bare encoder, which forwards the first `between` bytes of each message to the head; does not return."""
    client = _bare_client(port, f"bare-{side}")

    def on_message(c: paho.Client, _u: object, msg: paho.MQTTMessage) -> None:
        c.publish(f"bare/head/{side}", msg.payload[:between], qos=1, properties=_properties(msg))

    client.on_message = on_message
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe(f"bare/{side}", qos=1)
    client.loop_forever()


def _head(port: int, ready: Event) -> None:
    """Runs a bare head, which joins two messages by Correlation Data and answers; does not return."""
    client = _bare_client(port, "bare-head")
    parts: dict[bytes, bytes | bytearray] = {}

    def on_part(c: paho.Client, _u: object, msg: paho.MQTTMessage) -> None:
        request = msg.properties.CorrelationData  # type: ignore[union-attr]
        if request in parts:
            c.publish("bare/client", parts.pop(request) + msg.payload, qos=1, properties=_properties(msg))
        else:
            parts[request] = msg.payload

    client.on_message = on_part
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe("bare/head/+", qos=1)
    client.loop_forever()


class _Bare:
    """The baseline (`floor`): two encoders and a head in bare paho, each in a process."""

    def __init__(self, port: int, between: int) -> None:
        context = multiprocessing.get_context("spawn")
        ready = [context.Event() for _ in range(3)]
        targets: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (_encoder, (port, "left", between, ready[0])),
            (_encoder, (port, "right", between, ready[1])),
            (_head, (port, ready[2])),
        ]
        self.processes = [context.Process(target=target, args=args, daemon=True) for target, args in targets]
        for process in self.processes:
            process.start()
        for event in ready:
            if not event.wait(_WAIT_S):
                raise TimeoutError("a bare party did not come up")
        self.client = _bare_client(port, "bare-client")
        self.arrived = threading.Event()
        self.client.on_message = lambda *_: self.arrived.set()
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.loop_start()
        self.client.subscribe("bare/client", qos=1)
        subscribed.wait(_WAIT_S)
        self.count = 0

    def ask(self, payload: bytes) -> None:
        self.arrived.clear()
        self.count += 1
        for side in ("left", "right"):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = self.count.to_bytes(16, "big")
            self.client.publish(f"bare/{side}", payload, qos=1, properties=properties)
        if not self.arrived.wait(_WAIT_S):
            raise TimeoutError("no bare answer")

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        for process in self.processes:
            process.kill()


def _timed(ask: Callable[[], object], times: list[float], count: int) -> None:
    for _ in range(count):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1000)


def _figures(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50_ms": statistics.median(ordered), "p99_ms": ordered[int(len(ordered) * 0.99)], "n": len(ordered)}


def _spread(site: Site, between: int) -> None:
    """Publishes plans and a route in place of a planner: one module per node, so that every hop crosses the broker."""
    catalogue = shipped_catalogue()
    steps = {}
    for name, step in catalogue.models["noop"].steps.items():
        spec = catalogue.modules[step.module]
        if name != "head":
            spec = spec.model_copy(update={"config": {"keep_bytes": between}})
        site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=[spec]).encode(), node=name)
        outputs = list(catalogue.models["noop"].wanted_outputs(name))
        replicas = [m.Replica(node=name, ms=0.1)]
        steps[name] = m.RouteStep(module=spec.id, inputs=step.inputs, outputs=outputs, replicas=replicas)
    if not site.wait(lambda s: all(_holds(s, name) for name in steps), _READY_S):
        raise TimeoutError("the agents did not load the no-op modules")
    model = catalogue.models["noop"]
    doc = m.RouteDoc(
        epoch=1, revision=1, model="noop", inputs=model.inputs, answer=model.answer, deadline_s=_WAIT_S, steps=steps
    )
    site.publish(topics.ROUTE, doc.encode(), task="noop")


def _holds(site: Site, node: str) -> bool:
    return node in site.reported and any(r.state == "ready" for r in site.reported[node].modules.values())


def measure(kind: BrokerKind, size: str, rounds: int) -> dict[str, Any]:
    """Returns medians, 99th percentiles and the ratio of medians for one broker and one payload size."""
    sent, between = _SIZES[size]
    payload = bytes(sent)
    ours: list[float] = []
    floor: list[float] = []
    nodes = dict.fromkeys(("left", "right", "head"), 200.0)
    with (
        Cluster(nodes, kind=kind, threads=1, planner=False) as cluster,
        Site(cluster.settings) as site,
        Client(settings=cluster.settings) as client,
    ):
        _spread(site, between)
        bare = _Bare(cluster.settings.port, between)
        ask = partial(client.ask, "noop", left=payload, right=payload)
        for _ in range(_WARM_UP):
            ask()
            bare.ask(payload)
        for _ in range(rounds):
            _timed(partial(bare.ask, payload), floor, _BLOCK)
            _timed(ask, ours, _BLOCK)
        bare.stop()
    a, b = _figures(ours), _figures(floor)
    return {"broker": kind, "size": size, "ours": a, "floor": b, "ratio_p50": a["p50_ms"] / b["p50_ms"]}


def main() -> None:
    """Measures every installed broker with both payload sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help=f"blocks of {_BLOCK} requests")
    parser.add_argument("--json", type=Path, default=Path("bench/results/bus.json"))
    given = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    kinds: list[BrokerKind] = ["embedded"]
    if shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists():
        kinds.insert(0, "mosquitto")
    results = [measure(kind, size, given.rounds) for kind in kinds for size in _SIZES]
    print(f"{'broker':<10} {'size':<7} {'ours p50/p99 ms':>17} {'floor p50/p99 ms':>18} {'ratio':>6}")
    for r in results:
        ours, floor = (f"{r[k]['p50_ms']:.2f} / {r[k]['p99_ms']:.2f}" for k in ("ours", "floor"))
        print(f"{r['broker']:<10} {r['size']:<7} {ours:>17} {floor:>18} {r['ratio_p50']:>6.2f}")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"runs": results, "measured": measured_on()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
