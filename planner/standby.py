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
#: A planner whose will came while it lives, for it had lost its connection, says so in less.
_CONTRADICTED_S = 1.0
#: A planner tells its health each 10 s: this long without, and it hangs.
_SILENT_S = 25.0


def wait_for_turn(settings: BrokerSettings, stopping: threading.Event) -> int:
    """Returns when nobody plans, or whoever does has fallen silent, with the newest epoch seen (0: none).

    A planner that hangs, or whose cable was pulled, is not missed by every broker (rumqttd waits for its socket): its
    health, which it tells each ten seconds, is.

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
    heard = [time.monotonic()]

    def keep(_: str, state: m.PlannerState | None) -> None:
        if state is not None and (not seen or state.epoch >= seen[-1].epoch):  # else an old will that came late
            seen[:] = [state]
            changed.set()

    def hear(_: str, _health: m.PlannerHealth | None) -> None:
        heard[0] = time.monotonic()

    loop.start()
    listen(link, topics.PLANNER_HEALTH, hear)
    listen(link, topics.PLANNER_STATE, keep, then=confirmed.set)
    try:
        link.start()
        link.wait_for(confirmed, _NOBODY_S)
        changed.wait(_NOBODY_S)
        while seen and not stopping.is_set():
            changed.clear()
            if seen[-1].state == "offline":
                if not changed.wait(_CONTRADICTED_S):
                    break
                continue
            _log.info("standing_by", epoch=seen[-1].epoch)
            while not changed.wait(0.2) and not stopping.is_set():
                if link.connected and time.monotonic() > heard[0] + _SILENT_S:
                    _log.warning("planner_silent", epoch=seen[-1].epoch)
                    return seen[-1].epoch
                if not link.connected:  # nobody is heard while the broker is away
                    heard[0] = time.monotonic()
    finally:
        link.stop(timeout_s=1.0)
        loop.stop()
    return seen[-1].epoch if seen else 0


def next_epoch(seen: int) -> int:
    """Returns an epoch above the newest seen, and above any that a broker forgot: milliseconds since 1970.

    Up to a second more, by chance: two planners started at once must not have the same.
    """
    return max(seen + 1, int(time.time() * 1000) + secrets.randbelow(1000))
