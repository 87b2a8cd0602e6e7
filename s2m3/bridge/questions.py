"""Questions as text on `bridge/ask/<task>`: each becomes a request with the text and the task's last picture."""

from collections.abc import Callable, Mapping
from typing import Any

from s2m3.bindings.bound_topic import Asked
from s2m3.broker.mqtt.message import Message
from s2m3.broker.requests.actions import Result
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, BusyError, S2M3Error
from s2m3.schemas.wire.values import Kind

__all__ = ["Questions"]

_MOST = 8


class Questions:
    """Sends the requests of questions, a few at a time. All methods run in the loop's thread.

    Args:
        root: First levels of the site's topics.
        kinds: Returns input name -> kind of a task.
        last_picture: Returns the last picture that was an input of a task.
        ask: Sends a request; its callback is called once.
        refuse: Publishes why a question was not asked.
    """

    def __init__(
        self,
        root: str,
        *,
        kinds: Callable[[str], Mapping[str, Kind]],
        last_picture: Callable[[str], bytes | None],
        ask: Callable[[Asked, Mapping[str, Any], Callable[[Result], None]], None],
        refuse: Callable[[Asked, S2M3Error], None],
    ) -> None:
        self._root = root
        self._kinds = kinds
        self._last_picture = last_picture
        self._ask = ask
        self._refuse = refuse
        self._under_way = 0

    def take(self, message: Message) -> None:
        """Sends the request of a question, or publishes why there is none."""
        task = (topics.BRIDGE_ASK.ids(self._root, message.topic) or {}).get("task")
        if task is None or message.retain or not message.payload.strip():  # an empty payload clears a topic
            return
        kinds = self._kinds(task)
        question = message.payload.decode(errors="replace")
        picture = self._last_picture(task)
        asked = Asked(task, "question", question=question[:255], picture=picture)
        name = next((name for name, kind in kinds.items() if kind == "text"), None)
        if name is None:
            self._refuse(asked, BadInputError(f"{task} takes no question"))
        elif self._under_way >= _MOST:
            self._refuse(asked, BusyError(f"{_MOST} questions wait"))
        else:
            self._under_way += 1
            about = {} if picture is None else {key: picture for key, kind in kinds.items() if kind == "image"}
            self._ask(asked, {**about, name: question}, self._on_done)

    def _on_done(self, _: Result) -> None:
        self._under_way -= 1
