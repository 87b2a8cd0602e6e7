"""Hears who plans, on its own connection: rumqttd tells whoever has the planner's client id its own will instead."""

import secrets
from collections.abc import Callable
from functools import partial

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.settings import BrokerSettings

__all__ = ["PlannerObserver"]

#: A retained state comes at once; if none has this long after the broker's confirmation, it remembers none.
_NOTHING_S = 0.5
#: What else it remembers, the planner's own connection is told of meanwhile.
_SETTLE_S = 0.25


class PlannerObserver:
    """Asks the broker who plans, anew whenever told to, and goes on hearing of it.

    A planner that was frozen or cut off must not say a word of its own before the broker has told it of a successor:
    only a new subscription, made after the planner's own connection, is certain to be told.

    Args:
        settings: Where the broker is.
        loop: Its thread is the only one that calls here.
        heard: Gets each state, retained or new.
    """

    def __init__(self, settings: BrokerSettings, loop: Loop, heard: Callable[[m.PlannerState], None]) -> None:
        self._settings = settings
        self._loop = loop
        self._heard = heard
        self._link: Link | None = None
        self._then: Callable[[], None] | None = None

    def ask(self, then: Callable[[], None]) -> None:
        """Connects anew and subscribes.

        Args:
            then: Called once, soon after a state was heard or it was plain that there is none; not, if it is asked
                again before that.
        """
        self.stop()
        self._then = then
        link = self._link = Link(self._settings, f"s2m3-standby-{secrets.token_hex(6)}", self._loop)
        nothing = partial(self._loop.after, _NOTHING_S, partial(self._answered, link))
        listen(link, topics.PLANNER_STATE, partial(self._take, link), on_subscribed=nothing)
        link.begin()

    @property
    def refused(self) -> UnauthorisedError | None:
        """Why the broker does not let us; None while it does."""
        return self._link.refused if self._link is not None else None

    def stop(self) -> None:
        """Hears no more."""
        if self._link is not None:
            self._link.stop()
        self._link = self._then = None

    def _take(self, link: Link, _: str, state: m.PlannerState | None) -> None:
        if link is self._link and state is not None:
            self._heard(state)
            self._loop.after(_SETTLE_S, partial(self._answered, link))

    def _answered(self, link: Link) -> None:
        if link is self._link and self._then is not None:
            then, self._then = self._then, None
            then()
