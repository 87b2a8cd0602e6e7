"""Measures the device's compute throughput and the link to the broker, at start, in well under a second."""

import threading
import time
from dataclasses import dataclass

import numpy as np

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.schemas import topics

__all__ = ["LinkSpeed", "compute_gflops", "link_speed"]

_SIZE = 384
_COMPUTE_S = 0.1
_WAIT_S = 2.0
_SMALL = 64
_LARGE = 250_000
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """The link between this device and the broker, one way."""

    latency_ms: float
    mbps: float


def compute_gflops() -> float:
    """Returns the GFLOP/s of a float32 matrix product (a multiply-add is two operations): the best within 0.1 s."""
    a = np.ones((_SIZE, _SIZE), dtype=np.float32)
    product = a @ a
    best = 0.0
    deadline = time.perf_counter() + _COMPUTE_S
    while (started := time.perf_counter()) < deadline:
        np.matmul(a, a, out=product)
        best = max(best, 2 * _SIZE**3 / (time.perf_counter() - started) / 1e9)
    return best


def link_speed(link: Link, client: str) -> LinkSpeed:
    """Measures round trips of messages on a client topic of this agent; not to be called in the loop's thread.

    Args:
        link: A connected link.
        client: A client name that is used only here.

    Returns:
        Half the shortest round trip, and the throughput of the fastest large message. A message that does not return
        within 2 s counts as 2 s; the worst result is 1000 ms and 1 Mbit/s.

    Raises:
        UnauthorisedError: The broker denies this login its own topic.
    """
    topic = topics.CLIENT_IN.at(link.root, client=client)
    echoed = threading.Event()
    ready = threading.Event()

    def on_echo(_message: Message) -> None:
        echoed.set()

    link.subscribe(topic, on_echo, on_subscribed=ready.set)
    link.wait_for(ready, _WAIT_S)
    try:
        small = min((_round_trip(link, topic, echoed, _SMALL) for _ in range(_ROUNDS)), default=1.0)
        large = min((_round_trip(link, topic, echoed, _LARGE) for _ in range(2)), default=1.0)
    finally:
        link.unsubscribe(topic)
    seconds = max(large - small, 1e-4)
    return LinkSpeed(latency_ms=min(small * 500, 1000.0), mbps=max(2 * 8 * _LARGE / 1e6 / seconds, 1.0))


def _round_trip(link: Link, topic: str, echoed: threading.Event, size: int) -> float:
    echoed.clear()
    started = time.perf_counter()
    link.publish(Outgoing(topic, bytes(size), qos=0))
    return time.perf_counter() - started if link.wait_for(echoed, _WAIT_S) else _WAIT_S
