"""Plain requests whose connection was lost: their answers are held back until no other gateway can have them too."""

from collections.abc import Callable, Iterable, Iterator

from s2m3.agents.gateway.answer_publisher import AnswerPublisher
from s2m3.agents.gateway.open_request import OpenRequest, is_same
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.message import Message

__all__ = ["Orphans"]

#: Interval at which orphans are checked, seconds.
_CHECK_S = 1.0
#: Orphans are answered after so many checks with the session connected and no redelivery (callers have then had time to
#: reconnect too), or after so many with the broker connected but not the session.
_CHECKS_SESSION, _CHECKS_BROKER = 2, 10


class Orphans:
    """The orphans of one task. All methods run in the loop's thread.

    Args:
        loop: The agent's event loop.
        answers: Publishes their answers.
        session_is_back: Returns whether the task's session is connected.
    """

    def __init__(self, loop: Loop, answers: AnswerPublisher, session_is_back: Callable[[], bool]) -> None:
        self._loop, self._answers, self._session_is_back = loop, answers, session_is_back
        self._requests: list[OpenRequest] = []
        self._checks = 0
        self._timer: Timer | None = None

    def __iter__(self) -> Iterator[OpenRequest]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    def hold(self, requests: Iterable[OpenRequest]) -> None:
        """Replaces the orphans after a loss; the time until they are answered begins anew."""
        self._requests, self._checks = list(requests), 0
        if self._requests and self._timer is None:
            self._timer = self._loop.after(_CHECK_S, self._check)

    def find(self, message: Message) -> OpenRequest | None:
        """Returns the orphan that a message brings again."""
        return next((plain for plain in self._requests if is_same(plain.message, message)), None)

    def remove(self, plain: OpenRequest) -> None:
        """Removes an orphan that came again, or is answered; others are passed over."""
        self._requests = [other for other in self._requests if other is not plain]

    def _check(self) -> None:
        self._timer = None
        if not self._requests:
            return
        self._checks = self._checks + 1 if self._answers.is_connected else 0
        if self._checks >= (_CHECKS_SESSION if self._session_is_back() else _CHECKS_BROKER):
            for plain in self._requests:
                self._answers.send(plain)
        self._timer = self._loop.after(_CHECK_S, self._check)
