"""Finds the retained messages of a site on a broker, distinguishes them from those of others, and clears them."""

import json
import secrets
import threading
import time
from functools import partial
from typing import Any, Self

from s2m3.bindings.pattern import may_hold_answer
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.sessions import site_id
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Retained", "is_own_device", "is_own_topic"]

_CONFIRM_S = 10.0
#: Retained messages arrive right after the SUBACK: if none arrives for this long, all have arrived.
_QUIET_S = 0.5
#: On a site that runs, documents change all the time: after this long, seconds, what is there is taken as it is.
_SETTLED_S = 10.0
#: Services that still run publish their documents again: cleared topics are watched for this long.
_LOOK_AGAIN_S = 1.5
#: The first levels below the root that a site uses; other levels may belong to others.
_OURS = frozenset(path.pattern.split("/")[0] for path in topics.ALL)


def is_own_topic(topic: str, root: str) -> bool:
    """Returns whether a topic is one of a site's own."""
    return topic.startswith(f"{root}/") and topic.removeprefix(f"{root}/").split("/")[0] in _OURS


def is_own_device(topic: str, payload: bytes, root: str) -> bool:
    """Returns whether a discovery document is of this site, by its name, its origin, and the topics in it."""
    device = topic.split("/")[-2] if "/" in topic else ""
    if not device.startswith(f"{site_id(root)}-"):
        return False
    try:
        document = json.loads(payload)
        components: dict[str, Any] = document["cmps"]
        named = [place["t"] for component in components.values() for place in component.get("avty", [])]
        return bool(document["o"]["name"] == "s2m3") and f"{root}/bridge/state" in named
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


class Retained:
    """The retained messages of a broker, kept up to date while the context manager is open.

    Args:
        settings: The broker's address, and the login.
        prefix: First levels of Home Assistant's discovery topics.
    """

    def __init__(self, settings: BrokerSettings, prefix: str) -> None:
        self.root = settings.root
        self._prefix = prefix
        self._found: dict[str, bytes] = {}
        self._answers: set[str] = set()
        self._changed = threading.Condition()
        self._last = time.monotonic()
        name = f"view-{secrets.token_hex(6)}"
        self._loop = Loop(name)
        self._link = Link(settings, f"s2m3-{name}", self._loop)

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._link.start()
            self._read([f"{self.root}/#", f"{self._prefix}/device/+/config"])
            self._answers = {topic for topic in self._reported() if may_hold_answer(topic, self.root)}
            if self._answers:
                self._read(sorted(self._answers))
        except S2M3Error:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()
        self._loop.stop()

    @property
    def own(self) -> list[str]:
        """The site's own topics: the discovery documents first, because they name the others."""
        with self._changed:
            found = dict(self._found)
        devices = [t for t, payload in found.items() if self._is_device(t) and is_own_device(t, payload, self.root)]
        answers = [topic for topic in found if topic in self._answers]
        return [*sorted(devices), *sorted(answers), *sorted(t for t in found if is_own_topic(t, self.root))]

    @property
    def others(self) -> list[str]:
        """Topics below the root that do not belong to a site."""
        with self._changed:
            return sorted(t for t in self._found if t.startswith(f"{self.root}/") and not is_own_topic(t, self.root))

    @property
    def running(self) -> list[str]:
        """The services whose state says that they run: they would publish cleared documents again."""
        with self._changed:
            found = dict(self._found)
        names = []
        for topic, payload in sorted(found.items()):
            for path in (topics.PLANNER_STATE, topics.NODE_STATE, topics.BRIDGE_STATE):
                ids = path.ids(self.root, topic)
                if ids is not None and _state(payload) not in ("offline", "lost", None):
                    names.append(f"node {ids['node']}" if "node" in ids else path.pattern.split("/")[0])
        return names

    def clear(self, cleared: list[str]) -> list[S2M3Error]:
        """Clears topics; returns the errors of those that the broker did not let us clear.

        Raises:
            S2M3Error: The broker did not acknowledge in time.
        """
        left = threading.Semaphore(0)
        refused: list[S2M3Error] = []

        def refuse(error: S2M3Error) -> None:
            refused.append(error)
            left.release()

        for topic in cleared:
            self._link.publish(Outgoing(topic, b"", retain=True), on_delivered=left.release, on_refused=refuse)
            if not left.acquire(timeout=_CONFIRM_S):
                raise S2M3Error(f"the broker did not acknowledge {topic} in {_CONFIRM_S:g} s")
        return refused

    def published_again(self) -> list[str]:
        """Returns the topics that have a retained message again, or still, some time after they were cleared."""
        deadline = time.monotonic() + _LOOK_AGAIN_S
        with self._changed:
            while (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        return self.own

    def _read(self, filters: list[str]) -> None:
        for topic_filter in filters:
            confirmed = threading.Event()
            self._link.subscribe(topic_filter, self._take, on_subscribed=confirmed.set)
            if not self._link.wait_for(confirmed, _CONFIRM_S):
                raise S2M3Error(f"the broker did not confirm our subscriptions in {_CONFIRM_S:g} s")
        with self._changed:
            self._last = time.monotonic()
            settled = self._last + _SETTLED_S
            while (left := min(self._last + _QUIET_S, settled) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _take(self, message: Message) -> None:
        is_retained = message.retain or self._is_retained(message.topic)
        with self._changed:
            if not (is_retained or message.topic in self._found):
                return  # telemetry and requests, which never cease on a large site that runs
            self._last = time.monotonic()
            if message.payload:
                self._found[message.topic] = message.payload
            else:
                self._found.pop(message.topic, None)
            self._changed.notify_all()

    def _is_retained(self, topic: str) -> bool:
        """Whether the newest message on a topic is retained: the broker marks it so only for later subscribers."""
        return self._is_device(topic) or any(p.retain and p.ids(self.root, topic) is not None for p in topics.ALL)

    def _is_device(self, topic: str) -> bool:
        return topic.startswith(f"{self._prefix}/device/")

    def _reported(self) -> list[str]:
        with self._changed:
            found = dict(self._found)
        reports = map(partial(_report_of, self.root), found.items())
        return [topic for report in reports for topic in report]


def _report_of(root: str, found: tuple[str, bytes]) -> list[str]:
    """Returns the topics of retained answers that the report of a binding names."""
    topic, payload = found
    if topics.BRIDGE_BINDING.ids(root, topic) is None:
        return []
    try:
        return topics.BRIDGE_BINDING.decode(payload).retained
    except S2M3Error:
        return []


def _state(payload: bytes) -> str | None:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    state = found.get("state") if isinstance(found, dict) else None
    return state if isinstance(state, str) else None
