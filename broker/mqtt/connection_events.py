"""What a connection tells its owner."""

from collections.abc import Callable
from dataclasses import dataclass

from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import UnauthorisedError

__all__ = ["ConnectionEvents"]


@dataclass(frozen=True, slots=True)
class ConnectionEvents:
    """What a connection tells its owner, always in the loop's thread."""

    #: connected; the largest payload the broker takes
    up: Callable[[int], None]
    #: not connected any more, or never was; the error where trying again would not help
    down: Callable[[UnauthorisedError | None], None]
    message: Callable[[Message], None]
    #: packet id, and the reason of each refused filter (None: granted)
    subscribed: Callable[[int, list[str | None]], None]
    #: packet id, why the broker refused it (None: it did not), and whether somebody was subscribed as far as it tells
    acknowledged: Callable[[int, str | None, bool], None]
