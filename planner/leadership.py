"""What the planner says of itself, and what it hears of other planners: one of them plans, the newest."""

import threading
from collections.abc import Callable, Mapping

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.leader_election import next_epoch
from s2m3.broker.mqtt.message import Will
from s2m3.planner.planner_observer import PlannerObserver
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Leadership"]

_log = structlog.get_logger(__name__)
#: A state that contradicts ours is answered so much later: our own loss may be read late.
_CONTRADICT_S = 0.25


class Leadership:
    """The planner's own state document, and whether this process may still plan.

    Args:
        settings: Where the broker is.
        loop: Its thread is the only one that calls here, but for `tell` at the end.
        seen: The newest epoch seen of another planner.
        publish: Publishes a retained document.
        may_speak: Whether we may say that we plan: connected, and nobody has to be heard first.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        loop: Loop,
        seen: int,
        *,
        publish: Callable[[str, bytes], None],
        may_speak: Callable[[], bool],
    ) -> None:
        self.epoch = next_epoch(seen)
        #: set once another planner is newer: this one is to end
        self.superseded = threading.Event()
        #: the newest epoch known of another; and whether that one is gone, and forgotten by the broker
        self.newest, self.is_outlived = seen, False
        #: whether the broker told of any planner since `ask`: else it has forgotten everything
        self.is_known = False
        #: nodes that get nothing for now -> why
        self.held: Mapping[str, str] = {}
        self._topic = topics.PLANNER_STATE.at(settings.root)
        self._loop = loop
        self._publish = publish
        self._may_speak = may_speak
        self._observer = PlannerObserver(settings, loop, self._on_planner_state)

    @property
    def will(self) -> Will:
        """The last will of the planner's connection."""
        return Will(self._topic, m.PlannerState(state="offline", epoch=self.epoch, protocol=PROTOCOL).encode())

    @property
    def refused(self) -> UnauthorisedError | None:
        """Why the broker does not let us hear of other planners; None while it does."""
        return self._observer.refused

    def ask(self, on_answered: Callable[[], None]) -> None:
        """Asks the broker anew who plans; `on_answered` once that is known."""
        self.is_known = False
        self._observer.ask(on_answered)

    def tell(self, *, online: bool = True) -> None:
        """Says whether we plan."""
        state = m.PlannerState(
            state="online" if online else "offline", epoch=self.epoch, protocol=PROTOCOL, held=dict(self.held)
        )
        self._publish(self._topic, state.encode())

    def stop(self) -> None:
        """Hears no more."""
        self._observer.stop()

    def give_way_to_followed(self, followed: int) -> bool:
        """Gives way where most nodes follow a newer epoch, of a planner that is gone; returns whether it did."""
        if followed <= self.epoch:  # else its clock was ahead of ours
            return False
        self.is_outlived = True
        self._give_way(followed)
        return True

    def _on_planner_state(self, state: m.PlannerState) -> None:
        if self.superseded.is_set():
            return
        self.is_known = True
        if state.epoch > self.epoch:  # online or gone again: nodes refuse plans of our epoch since
            self._give_way(state.epoch)
        elif state.epoch < self.epoch or state.state == "offline":
            self._loop.after(_CONTRADICT_S, self._contradict)

    def _give_way(self, newest: int) -> None:
        _log.warning("superseded", epoch=self.epoch, by=newest)
        self.newest = newest
        self.superseded.set()

    def _contradict(self) -> None:
        """An old will that came late, or a planner that does not know of us yet; unless our own loss is read late."""
        if not self.superseded.is_set() and self._may_speak():
            self.tell()
