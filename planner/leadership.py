"""Whether this planner is the leader: its state document, and the states of other planners. The newest epoch leads."""

import threading
from collections.abc import Callable, Mapping
from functools import partial

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
#: Delay before we publish our state over a contradicting one: the loss of our own connection may be noticed later.
_CONTRADICT_S = 0.25


class Leadership:
    """The planner's own state document, and whether this process may still plan.

    Args:
        settings: The broker's address, and the login.
        loop: The event loop. All methods are called in its thread, except `publish_state` at the end.
        seen: The newest epoch seen of another planner; 0 if none.
        publish: Publishes a retained document, given its topic and payload.
        may_publish: Whether we may publish that we are online: connected, and sure that no newer planner exists.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        loop: Loop,
        seen: int,
        *,
        publish: Callable[[str, bytes], object],
        may_publish: Callable[[], bool],
    ) -> None:
        self.epoch = next_epoch(seen)
        #: set when a planner with a newer epoch exists: this process has to stop planning
        self.superseded = threading.Event()
        #: the newest epoch seen of another planner; whether that planner is gone and the broker has lost its state
        self.newest, self.is_outlived = seen, False
        #: whether the broker delivered any planner's state since `ask`; if not, it has lost its retained messages
        self.is_known = False
        #: whether it is known since `ask` what state the broker retains
        self.is_answered = False
        #: nodes that get no modules for now -> reason
        self.held: Mapping[str, str] = {}
        #: sleeping nodes that can be woken -> the state of waking, a text for people
        self.asleep: Mapping[str, str] = {}
        self._topic = topics.PLANNER_STATE.at(settings.root)
        self._loop = loop
        self._publish = publish
        self._may_publish = may_publish
        self._observer = PlannerObserver(settings, loop, self._on_planner_state)

    @property
    def will(self) -> Will:
        """The last will of the planner's connection: state offline."""
        return Will(self._topic, m.PlannerState(state="offline", epoch=self.epoch, protocol=PROTOCOL).encode())

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused the observer's connection; None if it did not."""
        return self._observer.refused

    def ask(self, on_answered: Callable[[], None]) -> None:
        """Reads the retained planner state on a new connection; `on_answered` is called when that is done."""
        self.is_known = self.is_answered = False
        self._observer.ask(partial(self._answered, on_answered))

    def _answered(self, on_answered: Callable[[], None]) -> None:
        self.is_answered = True
        on_answered()

    def publish_state(self, *, online: bool = True) -> None:
        """Publishes our state, online or offline."""
        state = m.PlannerState(
            state="online" if online else "offline",
            epoch=self.epoch,
            protocol=PROTOCOL,
            held=dict(self.held),
            asleep=dict(self.asleep),
        )
        self._publish(self._topic, state.encode())

    def hold(self, held: Mapping[str, str]) -> None:
        """Sets the nodes that get no modules for now, node -> reason; publishes our state if they changed."""
        if held != self.held:
            _log.info("nodes_held_back", nodes=" ".join(held))
            self.held = held
            self.publish_state()

    def set_asleep(self, asleep: Mapping[str, str]) -> None:
        """Sets the text about each sleeping node; publishes our state if one changed."""
        if asleep != self.asleep:
            self.asleep = asleep
            self.publish_state()

    def stop(self) -> None:
        """Ends the observer's connection."""
        self._observer.stop()

    def resign_to_followed(self, followed: int) -> bool:
        """Gives up leadership if most nodes follow a newer epoch, of a planner that is gone; returns whether it did."""
        if followed <= self.epoch:  # a newer one means that its planner's clock was ahead of ours
            return False
        self.is_outlived = True
        self._resign(followed)
        return True

    def _on_planner_state(self, state: m.PlannerState) -> None:
        if self.superseded.is_set():
            return
        self.is_known = True
        if state.epoch > self.epoch:  # whether that planner is online or not, nodes now refuse plans of our epoch
            self._resign(state.epoch)
        elif state.epoch < self.epoch or state.state == "offline":
            self._loop.after(_CONTRADICT_S, self._contradict)

    def _resign(self, newest: int) -> None:
        _log.warning("superseded", epoch=self.epoch, by=newest)
        self.newest = newest
        self.superseded.set()

    def _contradict(self) -> None:
        """Publishes our state over a late last will of an older planner, or over one that does not know of us."""
        if not self.superseded.is_set() and self._may_publish():  # we may have lost our own connection
            self.publish_state()
