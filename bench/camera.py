"""A camera under load: JPEGs at 5 per second, bound to a task on two nodes. Measures rate, freshness and memory.

Compares the rate of answers with the binding's rate limit, the age of a picture when it is analysed with the time
between two pictures, and memory at the end with memory after the first quarter.
"""

import argparse
import itertools
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion
from tables import measured_on

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.demo import DEMO_NODES
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site

ROOT = Path(__file__).parents[1]
PICTURES = [(ROOT / "s2m3" / "samples" / f"{name}.jpg").read_bytes() for name in ("chelsea", "coffee", "rocket")]
TEXTS = ["a cat looking at you", "a cup of coffee on a table", "a rocket taking off"]
SCENE = 15  # pictures
TOPIC = "frigate/porch/person/snapshot"


def numbered(picture: bytes, number: int) -> bytes:
    """Returns a JPEG with its number in a comment segment behind the first marker, so that all files differ."""
    comment = b"%08d" % number
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def number_of(picture: bytes) -> int:
    """Returns the number of a picture made by `numbered`."""
    return int(picture[6:14])


class Camera:
    """Publishes pictures over MQTT 3.1.1, retained as by Frigate, and records the answers to them."""

    def __init__(self, port: int) -> None:
        self.published: list[float] = []
        self.answers: list[dict[str, Any]] = []
        self._analysed = -1
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([("s2m3/v1/bridge/picture/porch", 1), ("s2m3/v1/bridge/answered/porch", 1)])
        self._client.loop_start()

    def run(self, seconds: float, per_second: float) -> None:
        """Publishes pictures for some seconds."""
        start = time.monotonic()
        while (due := start + len(self.published) / per_second) < start + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            number = len(self.published)
            self.published.append(time.monotonic())
            scene = PICTURES[number // SCENE % len(PICTURES)]
            self._client.publish(TOPIC, numbered(scene, number), qos=0, retain=True)

    def stop(self) -> None:
        """Ends the connection."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("picture/porch"):
            self._analysed = number_of(bytes(message.payload))
            return
        now, answer = time.monotonic(), json.loads(message.payload)
        if answer["event_type"] == "failed":
            self.answers.append({"at": now, "error": answer["error"]})
            return
        asked = now - answer["latency_ms"] / 1000
        right = answer["state"] == TEXTS[self._analysed // SCENE % len(PICTURES)]
        age = asked - self.published[self._analysed]
        self.answers.append({"at": now, "number": self._analysed, "age_s": age, "right": right})


def resident_mb(pid: int) -> float:
    """Returns the resident memory of a process and its children, 10^6 bytes: an agent is a child of its supervisor."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6


def watch_memory(pids: dict[str, int], stop: threading.Event) -> dict[str, list[float]]:
    """Starts a thread that records resident memory; returns its lists, name -> 10^6 bytes each second until `stop`."""
    found: dict[str, list[float]] = {name: [] for name in pids}

    def look() -> None:
        while not stop.wait(1.0):
            for name, pid in pids.items():
                found[name].append(resident_mb(pid))

    threading.Thread(target=look, daemon=True).start()
    return found


def measure(kind: BrokerKind | None, seconds: float, per_second: float, every_s: float) -> dict[str, Any]:
    """Runs a site and a camera for some seconds, and returns the run's figures."""
    nodes = dict(list(DEMO_NODES.items())[:2])
    with Cluster(nodes, kind=kind, threads=1, bridge=True) as cluster, Site(cluster.settings) as site:
        kept = cluster.broker.kind
        return {"broker": kept, "seconds": seconds} | watched(cluster, site, seconds, per_second, every_s)


def watched(cluster: Cluster, site: Site, seconds: float, per_second: float, every_s: float) -> dict[str, Any]:
    """Binds a camera to a task of a running site for some seconds; returns figures and the binding's report."""
    add_task(site, "porch", m.TaskSpec(model="retrieval", inputs={"text": TEXTS}, max_replicas=2))
    binding = Binding(source=TOPIC, task="porch", input="image", publish="home/porch", every_s=every_s)
    site.publish(topics.BIND, binding.encode(), binding="porch")
    if not site.wait(lambda s: s.ready("porch") and "porch" in s.reports, 120):
        raise SystemExit(f"not ready: {cluster.log('planner')[-800:]}")
    pids = {name: process.pid for name, process in cluster.processes.items()} | {"broker": cluster.broker.pid}
    stop = threading.Event()
    memory = watch_memory(pids, stop)
    camera = Camera(cluster.broker.port_v3)
    camera.run(seconds, per_second)
    site.wait(lambda s: s.reports["porch"].received == len(camera.published), 60)
    site.wait(lambda s: s.reports["porch"].answered >= len(camera.answers), 60)
    stop.set()
    camera.stop()
    report = site.reports["porch"].model_dump(exclude_none=True)
    return {"report": report} | figures(camera, memory, per_second, every_s)


def figures(camera: Camera, memory: dict[str, list[float]], per_second: float, every_s: float) -> dict[str, Any]:
    """Returns a run's figures on answers and memory."""
    good = [answer for answer in camera.answers if "number" in answer]
    ages = [answer["age_s"] for answer in good]
    span = good[-1]["at"] - good[0]["at"]
    lasted_s = good[-1]["at"] - camera.published[0]
    quarter = {name: max(1, len(rss) // 4) for name, rss in memory.items()}
    return {
        "published": len(camera.published),
        "lasted_s": round(lasted_s, 1),
        "answered": len(good),
        "failed": len(camera.answers) - len(good),
        "right": sum(answer["right"] for answer in good),
        "in_order": all(a["number"] < b["number"] for a, b in itertools.pairwise(good)),
        "rate_of_limit": (len(good) - 1) / span * every_s if span else None,
        "age_ms": {"p50": statistics.median(ages) * 1e3, "max": max(ages) * 1e3, "between_pictures": 1e3 / per_second},
        "memory_mb": {
            name: {
                "after_a_quarter": round(statistics.median(rss[quarter[name] : 2 * quarter[name]] or rss), 1),
                "at_the_end": round(statistics.median(rss[-quarter[name] :]), 1),
            }
            for name, rss in memory.items()
            if rss
        },
    }


def main() -> None:
    """Runs the benchmark, prints the figures, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--per-second", type=float, default=5.0)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--broker", choices=["mosquitto", "embedded"], default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "camera.json")
    given = parser.parse_args()
    found = measure(given.broker, given.seconds, given.per_second, given.every)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found | {"measured": measured_on()}, indent=1) + "\n")
    age, rate = found["age_ms"], found["rate_of_limit"]
    print(f"{found['broker']}: {found['published']} pictures in {given.seconds:g} s, {found['answered']} answered")
    print(f"  {found['right']} right, {found['failed']} failed; in order: {found['in_order']}")
    print(f"  rate: x{rate:.2f} of the limit of one each {given.every:g} s")
    print(f"  age of a picture when asked: median {age['p50']:.0f} ms, at most {age['max']:.0f} ms")
    print(f"    (x{age['max'] / age['between_pictures']:.2f} of the {age['between_pictures']:.0f} ms between pictures)")
    for name, rss in found["memory_mb"].items():
        ratio = rss["at_the_end"] / rss["after_a_quarter"]
        print(
            f"  {name}: {rss['after_a_quarter']} MB after a quarter, {rss['at_the_end']} MB at the end (x{ratio:.3f})"
        )


if __name__ == "__main__":
    main()
