"""Orders to this agent: to drain, to take work again, to measure, to sleep, to wake another machine; and idleness."""

import threading
import time
from collections.abc import Callable

import structlog

from s2m3.agents.wake_on_lan import send_magic_packet
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.sleep import NodeSettings, WakeOrder

__all__ = ["Orders"]

_log = structlog.get_logger(__name__)
#: Least time between two magic packets to one machine, whoever orders them.
_PAUSE_S = 0.5


class Orders:
    """Listens to the orders to one node. All methods run in the loop's thread.

    Args:
        settings: The settings of this node.
        link: The agent's connection.
        drain: Called when the node is ordered to drain.
        undrain: Called when the node is ordered to take work again.
        measure: Called, in a thread of its own, when the node is ordered to measure speed and link again.
    """

    def __init__(
        self,
        settings: AgentSettings,
        link: Link,
        *,
        drain: Callable[[], None],
        undrain: Callable[[], None],
        measure: Callable[[], None],
    ) -> None:
        self._link, self._node = link, settings.node
        self._may_sleep = settings.sleep_command is not None
        self._drain, self._undrain, self._measure = drain, undrain, measure
        self._idle_s: float | None = None
        self._busy_at = time.monotonic()
        #: MAC address -> when the last magic packet was sent there
        self._sent: dict[str, float] = {}
        #: whether the machine is to be put to sleep
        self.wants_sleep = False

    def start(self) -> None:
        """Subscribes. An access list of an older release lacks what is not required."""
        listen(self._link, topics.CONTROL, self._on_profile, verb="profile")
        listen(self._link, topics.CONTROL, self._on_drain, verb="drain")
        listen(self._link, topics.CONTROL, self._on_undrain, verb="undrain", required=False)
        listen(self._link, topics.CONTROL, self._on_sleep, verb="sleep", required=False)
        listen(self._link, topics.NODE_SETTINGS, self._on_settings, node=self._node, required=False)
        listen(self._link, topics.WAKE, self._on_wake, helper=self._node, required=False)

    def look(self, *, busy: bool) -> None:
        """Notes whether the node works; after the idle time that its settings allow, it wants to sleep."""
        now = time.monotonic()
        if busy:
            self._busy_at = now
        elif self._may_sleep and self._idle_s is not None and now - self._busy_at >= self._idle_s:
            self._sleep("idle")

    def _sleep(self, why: str) -> None:
        if not self.wants_sleep:
            _log.info("going_to_sleep", node=self._node, why=why)
            self.wants_sleep = True

    def _on_settings(self, _: str, settings: NodeSettings | None) -> None:
        minutes = settings.idle_minutes if settings is not None else None
        self._idle_s = None if minutes is None else minutes * 60

    def _on_sleep(self, _: str, request: m.ControlRequest | None) -> None:
        if request is not None and request.node == self._node and self._may_sleep:
            self._sleep("ordered")

    def _on_drain(self, _: str, request: m.ControlRequest | None) -> None:
        if request is not None and request.node == self._node:
            self._drain()

    def _on_undrain(self, _: str, request: m.ControlRequest | None) -> None:
        if request is not None and request.node == self._node:
            self._undrain()

    def _on_profile(self, _: str, request: m.ControlRequest | None) -> None:
        if request is not None and request.node in (None, self._node):
            threading.Thread(target=self._measure, name="measure", daemon=True).start()

    def _on_wake(self, _: str, order: WakeOrder | None) -> None:
        now = time.monotonic()
        if order is None or now - self._sent.get(order.wake, float("-inf")) < _PAUSE_S:
            return
        self._sent = {mac: at for mac, at in self._sent.items() if now - at < _PAUSE_S} | {order.wake: now}
        try:
            sent = send_magic_packet(order.wake, order.wake_address, order.wake_port)
        except OSError as error:
            _log.warning("magic_packet_not_sent", node=order.node, error=str(error))
        else:
            _log.info("magic_packet_sent", node=order.node, to=" ".join(sent), port=order.wake_port)
