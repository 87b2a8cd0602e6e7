"""The doors: each task's own MQTT session, so that plain requests wait in it from the first moment."""

from collections.abc import Callable
from functools import partial

import structlog

from broker.link import Link
from broker.loop import Loop
from broker.message import Message
from planner.facts import Facts
from schemas import topics
from schemas.errors import UnauthorisedError
from schemas.sessions import FRONT_SESSION_S, front_client_id
from schemas.settings import BrokerSettings

__all__ = ["Doors"]

_log = structlog.get_logger(__name__)
_STOP_S = 1.0
#: A door that could not be opened is tried again so much later; a removed task's front leaves its session first.
_RETRY_S = 1.0
_CLOSE_S = 1.0
Opened = Callable[[bool, UnauthorisedError | None], None]


class Doors:
    """Opens the doors of all tasks there are, and closes those of tasks that were removed.

    Args:
        settings: Where the broker is.
        loop: Its thread is the only one that calls here.
        facts: Its tasks are wanted, its sessions are the doors known to be open.
        changed: Called when a door was opened, or is to be tried again.
    """

    def __init__(self, settings: BrokerSettings, loop: Loop, facts: Facts, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._loop = loop
        self._facts = facts
        self._changed = changed
        self._opening: set[str] = set()
        self.refused: UnauthorisedError | None = None

    @property
    def opening(self) -> bool:
        """Whether some are on their way."""
        return bool(self._opening)

    def open_all(self) -> None:
        """Opens those that are not open."""
        for task in self._facts.tasks.keys() - self._facts.sessions - self._opening:
            self._opening.add(task)
            _open(self._settings, self._loop, task, then=partial(self._opened, task))

    def close(self, task: str) -> None:
        """Closes a removed task's, unless it is wanted again by then."""
        self._facts.sessions.discard(task)
        self._loop.after(_CLOSE_S, partial(self._close, task))

    def _close(self, task: str) -> None:
        if task not in self._facts.tasks:
            _close(self._settings, self._loop, task)

    def _opened(self, task: str, worked: bool, refused: UnauthorisedError | None) -> None:  # noqa: FBT001  # Opened
        self._opening.discard(task)
        if refused is not None:
            self.refused = refused
        elif task in self._facts.tasks:
            if worked:
                self._facts.sessions.add(task)
            self._loop.after(0.0 if worked else _RETRY_S, self._changed)


def _open(settings: BrokerSettings, loop: Loop, task: str, then: Opened) -> None:
    """Opens the session and leaves it to the task's front; from the loop's thread, without waiting.

    Args:
        settings: Where the broker is.
        loop: Ours.
        task: Whose session. No front may be connected: it would be thrown out.
        then: Told whether it worked, and if not, whether the broker does not let us.
    """
    links: list[Link] = []
    link = Link(
        settings,
        front_client_id(settings, task),
        loop,
        session_expiry_s=FRONT_SESSION_S,
        manual_ack=True,  # what comes in meanwhile stays for the front
        receive_maximum=1,
        reconnect=False,
        on_ended=lambda: then(False, links[0].refused),  # noqa: FBT003  # the answer to "did it work"
    )
    links.append(link)
    root = settings.root
    link.subscribe(topics.REQUEST.at(root, task=task), _leave)
    link.subscribe(topics.REQUEST_INPUT.all(root, task=task), _leave, then=partial(_leave_open, link, task, then))
    link.begin()


def _close(settings: BrokerSettings, loop: Loop, task: str) -> None:
    """Ends the session of a task that was removed: a clean start with its client id, and goodbye."""
    links: list[Link] = []
    client_id = front_client_id(settings, task)
    links.append(Link(settings, client_id, loop, reconnect=False, on_connected=lambda: links[0].stop(_STOP_S)))
    links[0].begin()


def _leave(_message: Message) -> None:
    """Unacknowledged, the broker keeps it for the front."""


def _leave_open(link: Link, task: str, then: Opened) -> None:
    link.stop(_STOP_S)
    _log.info("door_open", task=task)
    then(True, None)  # noqa: FBT003
