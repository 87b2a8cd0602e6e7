"""The time by which a task's route would have arrived if there were one; a task is unknown only after it. Pure."""

from dataclasses import dataclass, field

__all__ = ["RoutesAwaited"]


@dataclass(slots=True)
class RoutesAwaited:
    """The subscriptions to routes. Times are monotonic seconds."""

    #: tasks whose route was subscribed to, until the broker has delivered everything that it retains
    _awaited: set[str] = field(default_factory=set)
    _confirmed: dict[str, float] = field(default_factory=dict)

    def subscribed(self, task: str) -> None:
        """Notes that a task's route is being subscribed to."""
        self._awaited.add(task)

    def confirmed(self, task: str, now: float) -> None:
        """Notes that the route would have come by now if there were one."""
        self._awaited.discard(task)
        self._confirmed[task] = now

    def forget(self, task: str) -> None:
        """Notes that the subscription has ended."""
        self._awaited.discard(task)
        self._confirmed.pop(task, None)

    def since(self, task: str, up_since: float | None) -> float | None:
        """Returns the time by which a task's route would have arrived; None if it could not arrive yet.

        Args:
            task: The task.
            up_since: Time at which the connection was made; None without one.
        """
        if up_since is None or task in self._awaited:
            return None
        return max(up_since, self._confirmed.get(task, up_since))
