"""The callbacks from a connection to its owner."""

from collections.abc import Callable
from dataclasses import dataclass

from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import UnauthorisedError

__all__ = ["ConnectionEvents"]


@dataclass(frozen=True, slots=True)
class ConnectionEvents:
    """The callbacks from a connection to its owner, called in the loop's thread."""

    #: connected; gets the largest payload that the broker accepts, bytes
    up: Callable[[int], None]
    #: disconnected, or connecting failed; gets an error if another attempt would fail too
    down: Callable[[UnauthorisedError | None], None]
    message: Callable[[Message], None]
    #: packet id, and the reason of each refused filter (None: granted)
    subscribed: Callable[[int, list[str | None]], None]
    #: packet id, the broker's reason for a refusal (None: accepted), and False if it reported "no matching subscribers"
    acknowledged: Callable[[int, str | None, bool], None]
