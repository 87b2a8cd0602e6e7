"""Reads `planner/state` on a connection of its own: rumqttd delivers the planner's own last will to its client id."""

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

#: A retained state arrives right after the SUBACK; the broker retains none if none arrives within this time.
_NOTHING_S = 0.5
#: After the first state: time for the planner's own connection to receive its retained messages too.
_SETTLE_S = 0.25


class PlannerObserver:
    """Subscribes to `planner/state` on a new connection at each `ask`, and reports every state until `stop`.

    A planner that was frozen or disconnected must not publish before it knows whether another planner has taken over:
    only a subscription made after the planner's own connection is certain to deliver a successor's state.

    Args:
        settings: Where the broker is.
        loop: The event loop; all methods are called in its thread.
        on_state: Called with each state, retained or new.
    """

    def __init__(self, settings: BrokerSettings, loop: Loop, on_state: Callable[[m.PlannerState], None]) -> None:
        self._settings = settings
        self._loop = loop
        self._on_state = on_state
        self._link: Link | None = None
        self._on_answered: Callable[[], None] | None = None

    def ask(self, on_answered: Callable[[], None]) -> None:
        """Connects anew and subscribes.

        Args:
            on_answered: Called once, shortly after a state arrived or it is certain that the broker retains none; not
                called if `ask` or `stop` is called before.
        """
        self.stop()
        self._on_answered = on_answered
        link = self._link = Link(self._settings, f"s2m3-standby-{secrets.token_hex(6)}", self._loop)
        nothing = partial(self._loop.after, _NOTHING_S, partial(self._answered, link))
        listen(link, topics.PLANNER_STATE, partial(self._receive, link), on_subscribed=nothing)
        link.begin()

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused this connection; None if it did not."""
        return self._link.refused if self._link is not None else None

    def stop(self) -> None:
        """Ends the connection; no callback is called afterwards."""
        if self._link is not None:
            self._link.stop()
        self._link = self._on_answered = None

    def _receive(self, link: Link, _: str, state: m.PlannerState | None) -> None:
        if link is self._link and state is not None:
            self._on_state(state)
            self._loop.after(_SETTLE_S, partial(self._answered, link))

    def _answered(self, link: Link) -> None:
        if link is self._link and self._on_answered is not None:
            on_answered, self._on_answered = self._on_answered, None
            on_answered()
