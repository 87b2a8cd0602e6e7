"""What a site has left retained on a broker: found, told apart from what is others', and cleared."""

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
#: After the broker has confirmed, retained messages come at once; this long without one more, and all are here.
_QUIET_S = 0.5
#: Services that still run tell again what they own: what is cleared is looked at for so long.
_LOOK_AGAIN_S = 1.5
#: The first levels below the root that a site uses; others may be somebody else's.
_OURS = frozenset(path.pattern.split("/")[0] for path in topics.ALL)


def is_own_topic(topic: str, root: str) -> bool:
    """Returns whether a topic is one of a site's own."""
    return topic.startswith(f"{root}/") and topic.removeprefix(f"{root}/").split("/")[0] in _OURS


def is_own_device(topic: str, payload: bytes, root: str) -> bool:
    """Returns whether a discovery document is of this site: by its name, its origin, and the topics it names."""
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
    """What is retained, kept up to date while it is looked at.

    Args:
        settings: Where the broker is.
        prefix: Of Home Assistant's discovery.
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
        """The site's own topics: Home Assistant's documents first, for they name the rest."""
        with self._changed:
            found = dict(self._found)
        devices = [t for t, payload in found.items() if self._is_device(t) and is_own_device(t, payload, self.root)]
        answers = [topic for topic in found if topic in self._answers]
        return [*sorted(devices), *sorted(answers), *sorted(t for t in found if is_own_topic(t, self.root))]

    @property
    def others(self) -> list[str]:
        """Topics below the root that are none of a site's."""
        with self._changed:
            return sorted(t for t in self._found if t.startswith(f"{self.root}/") and not is_own_topic(t, self.root))

    @property
    def running(self) -> list[str]:
        """The services that say that they run: they would tell again what is cleared."""
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
        """Clears topics; returns what the broker did not let us.

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

    def told_again(self) -> list[str]:
        """Returns what is there again, or still, some time after it was cleared."""
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
            while (left := self._last + _QUIET_S - time.monotonic()) > 0:
                self._changed.wait(left)

    def _take(self, message: Message) -> None:
        with self._changed:
            self._last = time.monotonic()
            if not message.payload:
                self._found.pop(message.topic, None)
            elif message.retain or self._is_retained(message.topic):
                self._found[message.topic] = message.payload
            self._changed.notify_all()

    def _is_retained(self, topic: str) -> bool:
        """Whether what is said there now is retained too: the broker says so only to those who come later."""
        return self._is_device(topic) or any(p.retain and p.ids(self.root, topic) is not None for p in topics.ALL)

    def _is_device(self, topic: str) -> bool:
        return topic.startswith(f"{self._prefix}/device/")

    def _reported(self) -> list[str]:
        with self._changed:
            found = dict(self._found)
        reports = map(partial(_report_of, self.root), found.items())
        return [topic for report in reports for topic in report]


def _report_of(root: str, found: tuple[str, bytes]) -> list[str]:
    """The topics of retained answers that the report of a binding names."""
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
