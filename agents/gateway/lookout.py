"""Hears a task's plain requests at every broker of a cluster: what waits in a session whose broker dies is not lost."""

import secrets
import time
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

#: After a lost session is back, so long is waited for what it brings again.
_REDELIVERY_S = 1.0


class Lookout:
    """A listener at each broker, beside the task's session. Without further brokers (`fallback`) it does nothing.

    All methods run in the loop's thread.

    Args:
        task: The task.
        settings: The agent's settings.
        loop: The agent's event loop.
        on_missing: Called with each request that the session did not bring, once the session is back; it has no packet
            id, so nothing acknowledges it.
    """

    def __init__(self, task: str, settings: AgentSettings, loop: Loop, on_missing: Callable[[Message], None]) -> None:
        self._loop, self._on_missing = loop, on_missing
        self._requests = HeardRequests()
        self._was_lost = self._closed = False
        addresses = settings.addresses if settings.fallback else []
        self._links = [self._listen(task, settings, number, *address) for number, address in enumerate(addresses)]

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
            self._requests.heard(number, message, time.monotonic())

    def came(self, message: Message) -> bool:
        """Notes a request that the session brought; returns whether it was answered from a listener already."""
        is_counted = bool(self._links) and bool(message.mid) and REQUEUED not in message.user
        return is_counted and self._requests.came(message, time.monotonic())

    def session_lost(self) -> None:
        """Notes that the session's connection was lost."""
        self._was_lost = True

    def session_back(self) -> None:
        """Notes that the session is connected and subscribed."""
        if self._was_lost and self._links:
            self._loop.after(_REDELIVERY_S, self._take_missing)
        self._was_lost = False

    def _take_missing(self) -> None:
        if self._closed or self._was_lost:
            return
        for message in self._requests.take_missing():
            self._on_missing(replace(message, mid=0))

    def close(self) -> None:
        """Disconnects all listeners."""
        self._closed = True
        for link in self._links:
            link.stop(timeout_s=0.0)
