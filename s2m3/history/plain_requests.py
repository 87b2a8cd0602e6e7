"""The inputs of plain requests, kept until their answers arrive on `response/<task>`. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from s2m3.bindings.bound_topic import picture_of
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.plain import Transaction, read_inputs
from s2m3.schemas.wire.values import Kind

__all__ = ["PlainRequests", "picture_in"]

#: Seconds after the deadline within which an answer may still arrive here.
_MARGIN_S = 30.0
#: Most bytes of the inputs of all waiting requests; the inputs of the oldest are dropped first.
_LIMIT_BYTES = 24_000_000
_MOST_OF_A_TASK = 256
#: Kinds of inputs that the history shows; sounds are not shown.
_SHOWN: tuple[Kind, ...] = ("image", "images", "text", "texts", "number")


@dataclass(slots=True)
class _Asked:
    """One request; its inputs are None once it cannot be told from other requests."""

    at: float
    until: float
    inputs: Mapping[str, Any] | None
    nbytes: int


class PlainRequests:
    """The plain requests of a site that wait for their answers.

    An answer names its request by its transaction. An answer without one belongs to the only waiting request; while
    several requests wait, none of them gets an answer's picture: no picture is better than a wrong one.
    """

    def __init__(self) -> None:
        #: (task, transaction) -> the request
        self._named: dict[tuple[str, Transaction], _Asked] = {}
        #: task -> its requests without a transaction, the oldest first
        self._nameless: dict[str, list[_Asked]] = {}
        self._nbytes = 0

    def asked(
        self,
        task: str,
        transaction: Transaction | None,
        inputs: Mapping[str, Any],
        kinds: Mapping[str, Kind],
        *,
        deadline_s: float,
        now: float,
    ) -> None:
        """Keeps a request.

        Args:
            task: Its task.
            transaction: The caller's own id; None if the request has none.
            inputs: Name -> value, in plain form or as bytes.
            kinds: Name -> kind, of the task.
            deadline_s: The request's deadline, seconds.
            now: Monotonic seconds.
        """
        self._forget_old(now)
        shown = {name: value for name, value in inputs.items() if kinds.get(name) in _SHOWN}
        one = _Asked(now, now + deadline_s + _MARGIN_S, shown, sum(map(_size, shown.values())))
        self._nbytes += one.nbytes
        if transaction is not None:
            self._let_go(self._named.pop((task, transaction), None))
            self._named[task, transaction] = one
        else:
            waiting = self._nameless.setdefault(task, [])
            waiting.append(one)
            if len(waiting) > _MOST_OF_A_TASK:
                self._let_go(waiting.pop(0))
        while self._nbytes > _LIMIT_BYTES:
            self._let_go_of_oldest()

    def answered(self, task: str, transaction: Transaction | None) -> Mapping[str, Any]:
        """Returns the inputs of the request that an answer belongs to; {} if that is unknown."""
        if transaction is not None:
            found = self._named.pop((task, transaction), None)
            inputs = found.inputs if found is not None else None
            self._let_go(found)
            return inputs or {}
        waiting = self._nameless.get(task)
        if not waiting:
            return {}
        inputs = waiting[0].inputs if len(waiting) == 1 else None
        for one in waiting:
            self._let_go(one)
        waiting.pop()
        if not waiting:
            del self._nameless[task]
        return inputs or {}

    def _let_go(self, one: _Asked | None) -> None:
        if one is not None:
            self._nbytes -= one.nbytes
            one.inputs, one.nbytes = None, 0

    def _forget_old(self, now: float) -> None:
        for key in [key for key, one in self._named.items() if one.until < now]:
            self._let_go(self._named.pop(key))
        for task, waiting in list(self._nameless.items()):
            for one in [one for one in waiting if one.until < now]:
                self._let_go(one)
                waiting.remove(one)
            if not waiting:
                del self._nameless[task]

    def _let_go_of_oldest(self) -> None:
        every = chain(self._named.values(), *self._nameless.values())
        self._let_go(min((one for one in every if one.nbytes), key=lambda one: one.at))


def _size(value: object) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 8


def picture_in(inputs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> bytes | None:
    """Returns the first picture file among a plain request's inputs; None if there is none that can be read."""
    for name, kind in kinds.items():
        if kind in ("image", "images") and name in inputs:
            try:
                return picture_of(read_inputs({name: kind}, {name: inputs[name]}, {}), kinds)
            except BadInputError:
                return None
    return None
