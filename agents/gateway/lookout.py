"""Listens to a task's plain requests at every broker of a cluster, beside the task's session at one of the brokers.

Requests that wait in the session are lost when its broker dies, and are not delivered while it is cut off.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from s2m3.agents.gateway.heard_requests import HeardRequests
from s2m3.agents.gateway.requeue import REQUEUED
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.schemas import topics
from s2m3.schemas.settings import AgentSettings

__all__ = ["Lookout"]

#: Time in which the session must deliver a request that a listener heard, and the interval of checks, seconds.
_LATE_S, _LOOK_S = 2.0, 0.5


class Lookout:
    """A listener at each broker, beside the task's session. Without further brokers (`fallback`) it does nothing.

    All methods run in the loop's thread.

    Args:
        task: The task.
        settings: The agent's settings.
        loop: The agent's event loop.
        may_take: Whether the session is connected and more requests may be open; otherwise they wait in the session.
        on_missing: Called with each request that the session did not deliver (it has no packet id, and is not
            acknowledged), and with the listener's link, for the answer.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        task: str,
        settings: AgentSettings,
        loop: Loop,
        *,
        may_take: Callable[[], bool],
        on_missing: Callable[[Message, Link], None],
        clock: Callable[[], float],
    ) -> None:
        self._loop, self._clock, self._may_take, self._on_missing = loop, clock, may_take, on_missing
        self._requests = HeardRequests()
        addresses = settings.addresses if settings.fallback else []
        self._links = [self._listen(task, settings, number, *address) for number, address in enumerate(addresses)]
        self._timer = loop.after(_LOOK_S, self._look) if self._links else None

    def _listen(self, task: str, settings: AgentSettings, number: int, host: str, port: int) -> Link:
        there = settings.model_copy(update={"host": host, "port": port, "fallback": ""})
        link = Link(there, f"s2m3-lookout-{secrets.token_hex(6)}", self._loop, cut_over=settings.max_message_bytes)
        root, heard = settings.root, partial(self._heard, number)
        link.subscribe(topics.REQUEST.at(root, task=task), heard, retained=False)
        link.subscribe(topics.REQUEST_INPUT.all(root, task=task), heard, retained=False)
        link.subscribe(topics.REQUEST_TRANSACTION.all(root, task=task), heard, retained=False, required=False)
        link.begin()
        return link

    def _heard(self, number: int, message: Message) -> None:
        if message.payload and not message.retain and REQUEUED not in message.user:
            self._requests.heard(number, message, self._clock())

    def came(self, message: Message) -> bool:
        """Notes a request that the session delivered; returns whether a listener's copy was taken before."""
        is_counted = bool(self._links) and bool(message.mid) and REQUEUED not in message.user
        return is_counted and self._requests.came(message, self._clock())

    def _look(self) -> None:
        self._timer = self._loop.after(_LOOK_S, self._look)
        if self._may_take():
            for number, message in self._requests.take_missing(self._clock() - _LATE_S):
                self._on_missing(replace(message, mid=0), self._links[number])

    def close(self) -> None:
        """Disconnects all listeners."""
        if self._timer is not None:
            self._timer.cancel()
        for link in self._links:
            link.stop(timeout_s=0.0)
