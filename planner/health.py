"""Publishes the planner's counters, and learns by a message of its own when all retained messages have arrived.

Brokers deliver to a client in order: what the client publishes after the SUBACK comes back to it after the retained
messages. How long they take does not matter then: a slow broker, or a slow cable, is no sign that there are no more.
"""

import secrets
from collections.abc import Callable
from functools import partial

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.published_documents import Documents
from s2m3.planner.site_metrics import health_of
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error

__all__ = ["Health"]

_log = structlog.get_logger(__name__)
_EVERY_S = 10.0
#: A marker that has not come back by then will not: the access list is another one, or the outgoing queue was full.
_LIMIT_S = 60.0
#: A marker goes round twice: the embedded broker sends a message of another topic before retained ones that wait until
#: others are acknowledged, and those before the next one.
_ROUNDS = 2


class Health:
    """Publishes `planner/health`: each 10 s, and after each SUBACK with a marker, as correlation data, to wait for.

    A planner may publish and read the topic. All methods run in the loop's thread, except `start`.

    Args:
        link: The planner's connection.
        loop: The planner's loop.
        cluster: What is counted.
        documents: What is counted.
        on_all_came: Called once for each connect, when all retained messages have arrived.
    """

    def __init__(
        self,
        link: Link,
        loop: Loop,
        cluster: ClusterState,
        documents: Documents,
        on_all_came: Callable[[], object],
    ) -> None:
        self._link, self._loop = link, loop
        self._cluster, self._documents = cluster, documents
        self._on_all_came = on_all_came
        self._topic = topics.PLANNER_HEALTH.at(link.root)
        #: marker -> rounds that it still goes, and what is called then
        self._markers: dict[bytes, tuple[int, Callable[[], object]]] = {}
        #: whether all retained messages of this connection have arrived
        self.have_all_come = False

    def start(self) -> None:
        """Subscribes, and publishes from now on; to be called after all other subscriptions were made."""
        mark = partial(self.probe, self._note_end)
        self._link.subscribe(self._topic, self._on_health, on_subscribed=mark, required=False)
        self._link.on_connection_change(on_reconnect=mark)
        self._loop.every(_EVERY_S, self._publish)

    def on_connected(self) -> None:
        """Handles a new connection: the retained messages come again, and no marker comes back."""
        self.have_all_come = False
        self._markers.clear()

    def probe(self, on_back: Callable[[], object]) -> None:
        """Sends a marker; `on_back` is called when it has come back, unless the connection is lost before."""
        self._send(_ROUNDS, on_back)

    def _send(self, rounds: int, on_back: Callable[[], object]) -> None:
        marker = secrets.token_bytes(8)
        self._markers[marker] = rounds - 1, on_back
        self._loop.after(_LIMIT_S, partial(self._give_up, marker))
        self._publish(marker)

    def _publish(self, marker: bytes | None = None) -> None:
        health = health_of(self._cluster, self._documents).encode()
        message = Outgoing(self._topic, health, qos=0 if marker is None else 1, correlation=marker)
        try:
            self._link.publish(message, on_refused=lambda _: self._give_up(marker))
        except S2M3Error as error:
            _log.warning("not_published", topic=self._topic, error=str(error))

    def _on_health(self, message: Message) -> None:
        rounds, on_back = self._markers.pop(message.correlation or b"", (0, None))
        if rounds and on_back is not None:
            self._send(rounds, on_back)
        elif on_back is not None:
            on_back()

    def _give_up(self, marker: bytes | None) -> None:
        _, on_back = self._markers.pop(marker or b"", (0, None))
        if on_back is not None:
            _log.warning("marker_lost", topic=self._topic, advice="s2m3 secure init renews the access list")
            on_back()

    def _note_end(self) -> None:
        self.have_all_come = True
        self._on_all_came()
