"""Clears retained plain requests, which fill the broker's memory and disk: no access list can forbid them.

MQTT has one right to publish, retained or not, and the names of request topics have no bound. A plain request is never
retained (docs/protocol.md), so a retained message there is a mistake or an attack.
"""

import secrets

import structlog

from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.settings import BrokerSettings

__all__ = ["REQUESTS", "RetainedRequests"]

_log = structlog.get_logger(__name__)
#: The topics of plain requests.
REQUESTS = tuple(path for path in topics.ALL if path.pattern.startswith("request/"))
#: Delay from one look to the next, seconds.
_EVERY_S = 5.0
#: A look ends when no retained message has arrived for this long: the broker sends them right after the SUBACK.
_QUIET_S = 0.3
#: Of larger requests only the beginning is read; a broker sends no message over a limit that a client announces.
_KEPT_BYTES = 1_000
#: Most messages that the broker sends before we acknowledge: it holds the others without a copy.
_RECEIVE_MAXIMUM = 4


class RetainedRequests:
    """Subscribes to all plain requests for a moment, again and again, and clears those that are retained.

    The connection is its own, so that megabytes of requests do not delay the planner's documents. All methods run in
    the loop's thread, except `start` and `stop`.

    Args:
        settings: Where the broker is.
        loop: The planner's event loop.
    """

    def __init__(self, settings: BrokerSettings, loop: Loop) -> None:
        self._loop = loop
        #: without logins everybody may retain anything anywhere, so clearing requests protects nothing
        self._is_secured = settings.tls_ca is not None or settings.username is not None
        self._link = Link(
            settings,
            f"s2m3-retained-{secrets.token_hex(6)}",
            loop,
            receive_maximum=_RECEIVE_MAXIMUM,
            cut_over=_KEPT_BYTES,
        )
        self._filters = [path.all(settings.root) for path in REQUESTS]
        self._timer: Timer | None = None
        self._found: list[str] = []
        self._has_ended = False

    def start(self) -> None:
        """Connects and begins to look, on a broker with logins; does not wait."""
        if not self._is_secured:
            return
        self._link.on_connection_change(on_disconnect=self._end_look)
        self._link.begin()
        self._loop.call(self._look)

    def stop(self) -> None:
        """Disconnects."""
        self._has_ended = True
        if self._is_secured:
            self._link.stop(timeout_s=0.5)

    def _look(self) -> None:
        if self._has_ended:
            return
        self._found = []
        for topic_filter in self._filters:
            # an older access list may lack one of them
            self._link.subscribe(topic_filter, self._on_request, on_subscribed=self._wait, required=False)

    def _wait(self) -> None:
        """Ends the look unless another retained message arrives."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.after(_QUIET_S, self._end_look)

    def _on_request(self, message: Message) -> None:
        if not message.retain or not message.payload:
            return
        self._found.append(message.topic)
        self._wait()
        try:
            self._link.publish(Outgoing(message.topic, b"", retain=True), on_refused=self._refused)
        except S2M3Error as error:  # the outgoing queue is full: the next look finds the rest
            _log.debug("not_cleared", topic=message.topic, error=str(error))

    def _refused(self, error: S2M3Error) -> None:
        """Gives up if the broker denies it: the access list is of a release whose planner cleared nothing."""
        if not isinstance(error, UnauthorisedError):
            return
        if not self._has_ended:
            _log.warning("retained_requests_stay", error=error.detail, advice="s2m3 secure init renews the access list")
        self._has_ended = True

    def _end_look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for topic_filter in self._filters:
            self._link.unsubscribe(topic_filter)
        if self._found:
            _log.warning("retained_requests_cleared", count=len(self._found), topic=self._found[0])
        if not self._has_ended:
            self._timer = self._loop.after(0.0 if self._found else _EVERY_S, self._look)
