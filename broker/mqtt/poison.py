"""Which outgoing messages end their connection: the evidence against one, and those that were dropped. Pure.

A broker closes the connection of a client that sends what the broker does not accept (a topic, a size), and QoS 1 has
the client send the message again on the next connection, for ever: a poison message.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from s2m3.broker.mqtt.message import Outgoing

__all__ = ["Blame", "Dropped"]

#: Losses with a message in flight, beside others, after which it is sent alone.
_SUSPECT_AT = 2
#: A loss this soon after a message was sent alone is taken for the broker's answer to it, seconds. A later one may be a
#: dead network's: it takes more of them.
_SOON_S = 2.0
_GUILTY_AT, _GUILTY_LATE_AT = 2, 5
#: How long a dropped message is not sent again if its owner publishes it anew (as retained documents are on every
#: connect), seconds, and most such messages.
_REMEMBERED_S = 600.0
_MOST_REMEMBERED = 256


@dataclass(slots=True)
class Blame:
    """The connections that were lost with one message in flight."""

    losses: int = 0
    #: lost while it was in flight alone; and how many of these soon after it was sent
    alone: int = 0
    _soon: int = 0

    def lost(self, alone_s: float | None) -> None:
        """Counts a loss.

        Args:
            alone_s: If the message was in flight alone: for how long, seconds; else None.
        """
        self.losses += 1
        if alone_s is not None:
            self.alone += 1
            self._soon += alone_s <= _SOON_S

    def clear(self) -> None:
        """Forgets the losses with the message alone: connections are lost without it too."""
        self.alone = self._soon = 0

    @property
    def is_suspect(self) -> bool:
        """Whether the message has to be sent alone."""
        return self.losses >= _SUSPECT_AT

    @property
    def is_guilty(self) -> bool:
        """Whether the message is a poison message."""
        return self._soon >= _GUILTY_AT or self.alone >= _GUILTY_LATE_AT


class Dropped:
    """The poison messages of the last minutes, by topic and payload."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, message: Outgoing, now: float) -> None:
        """Remembers a message; `now` in monotonic seconds."""
        self._until[_digest(message)] = now + _REMEMBERED_S
        while len(self._until) > _MOST_REMEMBERED:
            self._until.popitem(last=False)

    def holds(self, message: Outgoing, now: float) -> bool:
        """Returns whether a message was dropped lately."""
        if not self._until:  # the ordinary case: no digest is computed
            return False
        until = self._until.get(_digest(message))
        return until is not None and now < until


def _digest(message: Outgoing) -> bytes:
    return hashlib.blake2b(message.topic.encode(errors="replace") + b"\0" + message.payload, digest_size=16).digest()
