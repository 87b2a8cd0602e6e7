"""Opens a task's own MQTT session, so that plain requests wait in it from the first moment, and closes it."""

from collections.abc import Callable
from functools import partial

import structlog

from broker.link import Link
from broker.loop import Loop
from broker.message import Message
from schemas import topics
from schemas.errors import UnauthorisedError
from schemas.sessions import FRONT_SESSION_S, front_client_id
from schemas.settings import BrokerSettings

__all__ = ["close_door", "open_door"]

_log = structlog.get_logger(__name__)
_STOP_S = 1.0
Opened = Callable[[bool, UnauthorisedError | None], None]


def open_door(settings: BrokerSettings, loop: Loop, task: str, then: Opened) -> None:
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
    link.subscribe(topics.REQUEST_INPUT.all(root, task=task), _leave, then=partial(_opened, link, task, then))
    link.begin()


def close_door(settings: BrokerSettings, loop: Loop, task: str) -> None:
    """Ends the session of a task that was removed: a clean start with its client id, and goodbye."""
    links: list[Link] = []
    client_id = front_client_id(settings, task)
    links.append(Link(settings, client_id, loop, reconnect=False, on_connected=lambda: links[0].stop(_STOP_S)))
    links[0].begin()


def _leave(_message: Message) -> None:
    """Unacknowledged, the broker keeps it for the front."""


def _opened(link: Link, task: str, then: Opened) -> None:
    link.stop(_STOP_S)
    _log.info("door_open", task=task)
    then(True, None)  # noqa: FBT003
