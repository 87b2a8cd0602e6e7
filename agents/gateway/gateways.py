"""The gateways and deputies of one agent: of the tasks that its plan names, as many as its open files allow."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import structlog

from s2m3.agents.gateway.gateway import Gateway
from s2m3.schemas.errors import UnauthorisedError

__all__ = ["Gateways"]

_log = structlog.get_logger(__name__)


class Gateways:
    """Makes, connects and closes gateways. In the loop's thread, except `refused` and `close`.

    Args:
        node: The node's name, for the log.
        make: Makes the gateway of a task.
        most: Most gateways, and most deputies; None for no limit. Each has a connection: over the limit of open files
            all would reconnect for ever.
    """

    def __init__(self, node: str, make: Callable[[str], Gateway], most: int | None) -> None:
        self.most = most
        self._node = node
        self._make = make
        self._gateways: dict[str, Gateway] = {}
        self._over: tuple[str, ...] = ()

    def follow(self, tasks: Sequence[str], deputies: Mapping[str, str]) -> None:
        """Keeps gateways and deputies of exactly these tasks; of the first ones if an older planner names too many.

        A deputy that becomes the gateway, or a gateway that becomes a deputy, remembers what it heard.

        Args:
            tasks: The tasks whose gateway this node is.
            deputies: Task -> its gateway, of the tasks whose deputy this node is.
        """
        taken = tasks[: self.most]
        standing_by = dict(islice(((task, of) for task, of in deputies.items() if task not in taken), self.most))
        for task in [task for task in self._gateways if task not in taken and task not in standing_by]:
            self._gateways.pop(task).close()
        for task in [*taken, *standing_by]:
            if task not in self._gateways:
                self._gateways[task] = self._make(task)
            if task in standing_by:
                self._gateways[task].stand_by(standing_by[task])
            else:
                self._gateways[task].connect()
        over = tuple(tasks[len(taken) :])
        if over and over != self._over:
            _log.error("too_many_gateways", node=self._node, most=self.most, not_served=" ".join(over)[:500])
        self._over = over

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused one of the sessions; None if it did not."""
        return next((gateway.refused for gateway in list(self._gateways.values()) if gateway.refused), None)

    def broker_lost(self) -> None:
        """Notifies all gateways that the agent's own connection was lost."""
        for gateway in self._gateways.values():
            gateway.broker_lost()

    def give_up(self) -> None:
        """Drops the orphans of all gateways: this node was declared lost."""
        for gateway in self._gateways.values():
            gateway.give_up()

    def close(self) -> None:
        """Closes all gateways."""
        for gateway in list(self._gateways.values()):
            gateway.close()
