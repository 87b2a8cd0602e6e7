"""How fast this device computes and how far the broker is: measured at start, in well under a second."""

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
    """One way between this device and the broker."""

    latency_ms: float
    mbps: float


def compute_gflops() -> float:
    """Returns 10^9 multiply-adds times two per second of a float32 matrix product: the best of 0.1 s of tries."""
    a = np.ones((_SIZE, _SIZE), dtype=np.float32)
    a @ a
    best = 0.0
    deadline = time.perf_counter() + _COMPUTE_S
    while (began := time.perf_counter()) < deadline:
        a @ a
        best = max(best, 2 * _SIZE**3 / (time.perf_counter() - began) / 1e9)
    return best


def link_speed(link: Link, client: str) -> LinkSpeed:
    """Measures round trips to the broker and back on our own client topic; not from the loop's thread.

    Args:
        link: A connected link.
        client: A client name of ours that nobody else uses.

    Returns:
        Half the best round trip, and the throughput of the best large one. If the broker does not answer in 2 s, what
        is known so far; at worst 1000 ms and 1 Mbit/s.

    Raises:
        UnauthorisedError: The broker does not let us be who we say we are.
    """
    topic = topics.CLIENT_IN.at(link.root, client=client)
    came = threading.Event()
    ready = threading.Event()

    def arrived(_message: Message) -> None:
        came.set()

    link.subscribe(topic, arrived, on_subscribed=ready.set)
    link.wait_for(ready, _WAIT_S)
    try:
        small = min((_round_trip(link, topic, came, _SMALL) for _ in range(_ROUNDS)), default=1.0)
        large = min((_round_trip(link, topic, came, _LARGE) for _ in range(2)), default=1.0)
    finally:
        link.unsubscribe(topic)
    seconds = max(large - small, 1e-4)
    return LinkSpeed(latency_ms=min(small * 500, 1000.0), mbps=max(2 * 8 * _LARGE / 1e6 / seconds, 1.0))


def _round_trip(link: Link, topic: str, came: threading.Event, size: int) -> float:
    came.clear()
    began = time.perf_counter()
    link.publish(Outgoing(topic, bytes(size), qos=0))
    return time.perf_counter() - began if link.wait_for(came, _WAIT_S) else _WAIT_S
