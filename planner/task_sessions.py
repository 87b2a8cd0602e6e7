"""The doors: each task's own MQTT session, so that plain requests wait in it from the first moment."""

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
#: A door that could not be opened is tried again so much later; a removed task's gateway leaves its session first.
_RETRY_S = 1.0
_CLOSE_S = 1.0
Opened = Callable[[bool, UnauthorisedError | None], None]


class TaskSessions:
    """Opens the doors of all tasks there are, and closes those of tasks that were removed.

    Args:
        settings: Where the broker is.
        loop: Its thread is the only one that calls here.
        facts: Its tasks are wanted, its sessions are the doors known to be open.
        changed: Called when a door was opened, or is to be tried again.
    """

    def __init__(
        self, settings: BrokerSettings, loop: Loop, cluster: ClusterState, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._cluster = cluster
        self._changed = changed
        self._opening: set[str] = set()
        self.refused: UnauthorisedError | None = None

    @property
    def opening(self) -> bool:
        """Whether some are on their way."""
        return bool(self._opening)

    def open_all(self) -> None:
        """Opens those that are not open."""
        for task in self._cluster.tasks.keys() - self._cluster.sessions - self._opening:
            self._opening.add(task)
            _open(self._settings, self._loop, task, on_opened=partial(self._opened, task))

    def close(self, task: str) -> None:
        """Closes a removed task's, unless it is wanted again by then."""
        self._cluster.sessions.discard(task)
        self._loop.after(_CLOSE_S, partial(self._close, task))

    def _close(self, task: str) -> None:
        if task not in self._cluster.tasks:
            _close(self._settings, self._loop, task)

    def _opened(self, task: str, worked: bool, refused: UnauthorisedError | None) -> None:  # noqa: FBT001  # Opened
        self._opening.discard(task)
        if refused is not None:
            self.refused = refused
        elif task in self._cluster.tasks:
            if worked:
                self._cluster.sessions.add(task)
            self._loop.after(0.0 if worked else _RETRY_S, self._changed)


def _open(settings: BrokerSettings, loop: Loop, task: str, on_opened: Opened) -> None:
    """Opens the session and leaves it to the task's gateway; from the loop's thread, without waiting.

    Args:
        settings: Where the broker is.
        loop: Ours.
        task: Whose session. No gateway may be connected: it would be thrown out.
        on_opened: Told whether it worked, and if not, whether the broker does not let us.
    """
    links: list[Link] = []
    link = Link(
        settings,
        task_client_id(settings, task),
        loop,
        session_expiry_s=TASK_SESSION_S,
        manual_ack=True,  # what comes in meanwhile stays for the gateway
        receive_maximum=1,
        reconnect=False,
        on_ended=lambda: on_opened(False, links[0].refused),  # noqa: FBT003  # the answer to "did it work"
    )
    links.append(link)
    root = settings.root
    link.subscribe(topics.REQUEST.at(root, task=task), _leave)
    link.subscribe(
        topics.REQUEST_INPUT.all(root, task=task), _leave, on_subscribed=partial(_leave_open, link, task, on_opened)
    )
    link.begin()


def _close(settings: BrokerSettings, loop: Loop, task: str) -> None:
    """Ends the session of a task that was removed: a clean start with its client id, and goodbye."""
    links: list[Link] = []
    client_id = task_client_id(settings, task)
    links.append(Link(settings, client_id, loop, reconnect=False, on_connected=lambda: links[0].stop(_STOP_S)))
    links[0].begin()


def _leave(_message: Message) -> None:
    """Unacknowledged, the broker keeps it for the gateway."""


def _leave_open(link: Link, task: str, on_opened: Opened) -> None:
    link.stop(_STOP_S)
    _log.info("task_session_open", task=task)
    on_opened(True, None)  # noqa: FBT003
