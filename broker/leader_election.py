"""One at a time: whoever comes second waits until the first one's state is offline, or it has fallen silent."""

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
#: A retained state comes at once; if none has after this long, nobody is there.
_NOBODY_S = 0.5
#: Whose will came while it lives, for it had lost its connection, says so in less.
_CONTRADICTED_S = 1.0


@dataclass(frozen=True, slots=True)
class Election:
    """A service of which a site has one at work.

    Args:
        state: Whether one is; its document has `state` and `epoch`, its last will is offline.
        beat: What it tells again and again; of the one at work alone.
        silent_s: This long without, and it hangs.
    """

    state: topics.Topic[Any]
    beat: topics.Topic[Any]
    silent_s: float


#: Its health comes each 10 s.
PLANNER = Election(topics.PLANNER_STATE, topics.PLANNER_HEALTH, silent_s=25.0)
#: It tells its state each 5 s.
BRIDGE = Election(topics.BRIDGE_STATE, topics.BRIDGE_STATE, silent_s=12.5)


def wait_for_leadership(election: Election, settings: BrokerSettings, stopping: threading.Event) -> int:
    """Returns when nobody is at work, or whoever is has fallen silent, with the newest epoch seen (0: none).

    One that hangs, or whose cable was pulled, is not missed by every broker (rumqttd waits for its socket): its beat
    is.

    Args:
        election: Of which service.
        settings: Where the broker is.
        stopping: Set to give up waiting.

    Raises:
        UnauthorisedError: The broker refused the login.
        S2M3Error: There is no broker.
    """
    name = f"standby-{secrets.token_hex(6)}"
    loop = Loop(name)
    link = Link(settings, f"s2m3-{name}", loop)
    heard = _Heard()
    confirmed = threading.Event()
    loop.start()
    if election.beat != election.state:
        listen(link, election.beat, heard.beat)
    listen(link, election.state, heard.state, on_subscribed=confirmed.set)
    try:
        link.start()
        link.wait_for(confirmed, _NOBODY_S)
        heard.changed.wait(_NOBODY_S)
        while heard.newest is not None and not stopping.is_set():
            heard.changed.clear()
            if heard.newest.state != "offline":
                _log.info("standing_by", epoch=heard.newest.epoch)
                if not _wait_for_change(election, link, heard, stopping):
                    break
            elif not heard.changed.wait(_CONTRADICTED_S):
                break
    finally:
        link.stop(timeout_s=1.0)
        loop.stop()
    return heard.newest.epoch if heard.newest is not None else 0


class _Heard:
    """Of whoever is at work. Written in the loop's thread."""

    def __init__(self) -> None:
        self.newest: Any = None
        self.changed = threading.Event()
        self.at = time.monotonic()

    def state(self, _: str, state: Any) -> None:
        if state is None or (self.newest is not None and state.epoch < self.newest.epoch):
            return  # cleared, or an old will that came late
        self.at = time.monotonic()
        if state != self.newest:
            self.newest = state
            self.changed.set()

    def beat(self, _: str, _beat: Any) -> None:
        self.at = time.monotonic()


def _wait_for_change(election: Election, link: Link, heard: _Heard, stopping: threading.Event) -> bool:
    """Returns whether its state changed, or we are to stop; not, if it has fallen silent."""
    while not heard.changed.wait(0.2) and not stopping.is_set():
        if not link.connected:  # nobody is heard while the broker is away
            heard.at = time.monotonic()
        elif time.monotonic() > heard.at + election.silent_s:
            _log.warning("silent", topic=election.beat.pattern, epoch=heard.newest.epoch)
            return False
    return True


def next_epoch(seen: int) -> int:
    """Returns an epoch above the newest seen, and above any that a broker forgot: milliseconds since 1970.

    Up to a second more, by chance: two planners started at once must not have the same.
    """
    return max(seen + 1, int(time.time() * 1000) + secrets.randbelow(1000))
