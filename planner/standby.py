"""One planner at a time: whoever comes second waits until `planner/state` is offline."""

import secrets
import threading
import time

import structlog

from broker.link import Link
from broker.listening import listen
from broker.loop import Loop
from schemas import messages as m
from schemas import topics
from schemas.settings import BrokerSettings

__all__ = ["wait_for_turn"]

_log = structlog.get_logger(__name__)
#: A retained state comes at once; if none has after this long, nobody plans.
_NOBODY_S = 0.5


def wait_for_turn(settings: BrokerSettings, stopping: threading.Event) -> int:
    """Returns when nobody plans, with the newest epoch seen (0: none).

    Args:
        settings: Where the broker is.
        stopping: Set to give up waiting.

    Raises:
        UnauthorisedError: The broker refused the login.
        S2M3Error: There is no broker.
    """
    name = f"standby-{secrets.token_hex(6)}"
    loop = Loop(name)
    link = Link(settings, f"s2m3-{name}", loop)
    seen: list[m.PlannerState] = []
    confirmed = threading.Event()
    changed = threading.Event()

    def keep(_: str, state: m.PlannerState | None) -> None:
        if state is not None:
            seen.append(state)
            changed.set()

    loop.start()
    listen(link, topics.PLANNER_STATE, keep, then=confirmed.set)
    try:
        link.start()
        link.wait_for(confirmed, _NOBODY_S)
        changed.wait(_NOBODY_S)
        while seen and seen[-1].state == "online" and not stopping.is_set():
            _log.info("standing_by", epoch=seen[-1].epoch)
            changed.clear()
            while not changed.wait(0.2) and not stopping.is_set():
                continue
    finally:
        link.stop(timeout_s=1.0)
        loop.stop()
    return max((state.epoch for state in seen), default=0)


def next_epoch(seen: int) -> int:
    """Returns an epoch above the newest seen, and above any that a broker forgot: milliseconds since 1970."""
    return max(seen + 1, int(time.time() * 1000))
