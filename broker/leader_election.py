"""Leader election over a retained state topic: a second planner (or bridge) stands by until the leader is gone.

The leader is gone once its state is offline (its last will, or a clean stop) or its heartbeat stops.
"""

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.schemas import topics
from s2m3.schemas.settings import BrokerSettings

__all__ = ["BRIDGE", "PLANNER", "Election", "next_epoch", "wait_for_leadership"]

_log = structlog.get_logger(__name__)
#: A retained state arrives right after the SUBACK; if none arrives within this time, there is no leader.
_NO_LEADER_S = 0.5
#: A live leader whose last will was published (its connection was lost) republishes its state within this time.
_REPUBLISHED_S = 1.0


@dataclass(frozen=True, slots=True)
class Election:
    """The topics and timeout by which instances of a service elect one leader.

    Args:
        state: Retained topic of the leader's state; the document has `state` and `epoch`, the last will is offline.
        beat: Topic of the leader's heartbeat; only the leader publishes on it.
        silent_s: Seconds without a heartbeat after which the leader counts as hung.
    """

    state: topics.Topic[Any]
    beat: topics.Topic[Any]
    silent_s: float


#: The planner publishes its health each 10 s.
PLANNER = Election(topics.PLANNER_STATE, topics.PLANNER_HEALTH, silent_s=25.0)
#: The bridge publishes its state each 5 s.
BRIDGE = Election(topics.BRIDGE_STATE, topics.BRIDGE_STATE, silent_s=12.5)


def wait_for_leadership(election: Election, settings: BrokerSettings, stopping: threading.Event) -> int:
    """Blocks until there is no live leader or `stopping` is set; returns the newest epoch seen, 0 if none.

    The heartbeat is needed because not every broker publishes the last will of a leader that hangs or lost its cable:
    rumqttd waits for the socket to close.

    Args:
        election: The service to lead.
        settings: Where the broker is.
        stopping: Set by another thread to stop waiting.

    Raises:
        UnauthorisedError: The broker refused the login.
        S2M3Error: No broker answers.
    """
    name = f"standby-{secrets.token_hex(6)}"
    loop = Loop(name)
    link = Link(settings, f"s2m3-{name}", loop)
    leader = _Leader()
    confirmed = threading.Event()
    loop.start()
    if election.beat != election.state:
        listen(link, election.beat, leader.beat)
    listen(link, election.state, leader.state, on_subscribed=confirmed.set)
    try:
        link.start()
        link.wait_for(confirmed, _NO_LEADER_S)
        leader.changed.wait(_NO_LEADER_S)
        while leader.newest is not None and not stopping.is_set():
            leader.changed.clear()
            if leader.newest.state != "offline":
                _log.info("standing_by", epoch=leader.newest.epoch)
                if not _wait_for_change(election, link, leader, stopping):
                    break
            elif not leader.changed.wait(_REPUBLISHED_S):
                break
    finally:
        link.stop(timeout_s=1.0)
        loop.stop()
    return leader.newest.epoch if leader.newest is not None else 0


class _Leader:
    """The leader's newest state, and when its last message arrived. Written in the loop's thread."""

    def __init__(self) -> None:
        self.newest: Any = None
        self.changed = threading.Event()
        self.at = time.monotonic()

    def state(self, _: str, state: Any) -> None:
        if state is None or (self.newest is not None and state.epoch < self.newest.epoch):
            return  # the topic was cleared, or an earlier leader's last will arrived late
        self.at = time.monotonic()
        if state != self.newest:
            self.newest = state
            self.changed.set()

    def beat(self, _: str, _beat: Any) -> None:
        self.at = time.monotonic()


def _wait_for_change(election: Election, link: Link, leader: _Leader, stopping: threading.Event) -> bool:
    """Waits for a new state of the leader or a stop; returns False if the heartbeat stopped instead."""
    while not leader.changed.wait(0.2) and not stopping.is_set():
        if not link.connected:  # no heartbeat can arrive without a connection
            leader.at = time.monotonic()
        elif time.monotonic() > leader.at + election.silent_s:
            _log.warning("silent", topic=election.beat.pattern, epoch=leader.newest.epoch)
            return False
    return True


def next_epoch(seen: int) -> int:
    """Returns an epoch above the newest seen and above any that a broker has lost: milliseconds since 1970.

    Up to a second is added at random, so that two planners started together get different epochs.
    """
    return max(seen + 1, int(time.time() * 1000) + secrets.randbelow(1000))
