"""Persistent MQTT sessions of tasks: the planner opens them, so that the broker queues plain requests at once."""

from collections.abc import Callable
from functools import partial

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas import topics
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.sessions import TASK_SESSION_S, task_client_id
from s2m3.schemas.settings import BrokerSettings

__all__ = ["TaskSessions"]

_log = structlog.get_logger(__name__)
_STOP_S = 1.0
#: Delay before another attempt to open a session.
_RETRY_S = 1.0
#: Delay before a removed task's session is ended, so that its gateway disconnects first.
_CLOSE_S = 1.0
#: Most sessions that are being opened: each takes a connection, and a thread while it connects.
_AT_ONCE = 32
Opened = Callable[[bool, UnauthorisedError | None], None]


class TaskSessions:
    """Opens the sessions of all desired tasks, and ends those of removed tasks.

    Args:
        settings: Where the broker is.
        loop: The event loop; all methods are called in its thread.
        cluster: Holds the desired tasks, and the set of tasks whose session is open, which is updated here.
        changed: Called after a session was opened, and when a failed attempt is to be repeated: it leads to `open_all`.
    """

    def __init__(
        self, settings: BrokerSettings, loop: Loop, cluster: ClusterState, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._cluster = cluster
        self._changed = changed
        self._opening: set[str] = set()
        #: tasks whose session could not be opened a moment ago
        self._resting: set[str] = set()
        self.refused: UnauthorisedError | None = None

    @property
    def opening(self) -> bool:
        """Whether any session is being opened."""
        return bool(self._opening)

    def open_all(self) -> None:
        """Opens the sessions of all desired tasks that are neither open nor being opened, some of them at a time."""
        closed = self._cluster.tasks.keys() - self._cluster.sessions - self._opening - self._resting
        for task in sorted(closed)[: _AT_ONCE - len(self._opening)]:
            self._opening.add(task)
            _open(self._settings, self._loop, task, on_opened=partial(self._opened, task))

    def close(self, task: str) -> None:
        """Ends a removed task's session after a delay, unless the task is desired again by then."""
        self._cluster.sessions.discard(task)
        self._loop.after(_CLOSE_S, partial(self._close, task))

    def _close(self, task: str) -> None:
        if task not in self._cluster.tasks:
            _close(self._settings, self._loop, task)

    def _opened(self, task: str, worked: bool, refused: UnauthorisedError | None) -> None:  # noqa: FBT001  # Opened
        self._opening.discard(task)
        if refused is not None:
            self.refused = refused
        elif task not in self._cluster.tasks:
            self.close(task)  # removed meanwhile; `close` may have ended the session before it was open
        elif worked:
            self._cluster.sessions.add(task)
            self._changed()
        else:
            self._resting.add(task)
            self._loop.after(_RETRY_S, partial(self._rested, task))
        self.open_all()

    def _rested(self, task: str) -> None:
        self._resting.discard(task)
        self._changed()


def _open(settings: BrokerSettings, loop: Loop, task: str, on_opened: Opened) -> None:
    """Opens a task's persistent session with its subscriptions and disconnects, without blocking.

    Args:
        settings: Where the broker is.
        loop: The event loop.
        task: The task. Its gateway must not be connected: the broker would disconnect it (session takeover).
        on_opened: Called with whether the session was opened, and the broker's refusal if there was one.
    """
    links: list[Link] = []
    link = Link(
        settings,
        task_client_id(settings, task),
        loop,
        session_expiry_s=TASK_SESSION_S,
        manual_ack=True,  # requests that arrive now stay unacknowledged for the gateway
        receive_maximum=1,
        cut_over=settings.max_message_bytes,
        reconnect=False,
        on_ended=lambda: on_opened(False, links[0].refused),  # noqa: FBT003  # the answer to "did it work"
    )
    links.append(link)
    root = settings.root
    subscribe = partial(link.subscribe, handler=_ignore, retained=False)
    subscribe(topics.REQUEST.at(root, task=task))
    subscribe(topics.REQUEST_INPUT.all(root, task=task))
    opened = partial(_disconnect, link, task, on_opened)
    # not required: the access list of an older release has no such topic
    subscribe(topics.REQUEST_TRANSACTION.all(root, task=task), required=False, on_subscribed=opened)
    link.begin()


def _close(settings: BrokerSettings, loop: Loop, task: str) -> None:
    """Ends a removed task's session: a clean start with its client id, then a disconnect."""
    links: list[Link] = []
    client_id = task_client_id(settings, task)
    links.append(Link(settings, client_id, loop, reconnect=False, on_connected=lambda: links[0].stop(_STOP_S)))
    links[0].begin()


def _ignore(_message: Message) -> None:
    """Leaves a request unacknowledged, so that the broker redelivers it to the gateway."""


def _disconnect(link: Link, task: str, on_opened: Opened) -> None:
    link.stop(_STOP_S)
    _log.info("task_session_open", task=task)
    on_opened(True, None)  # noqa: FBT003
