"""The routes of the last plan, so that the next one makes only those anew whose content has changed. Pure."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from s2m3.schemas.messages import RouteDoc

__all__ = ["KnownRoutes"]


@dataclass(slots=True)
class KnownRoutes:
    """The route of each task, with everything that it was made of."""

    _routes: dict[str, tuple[tuple[object, ...], RouteDoc]] = field(default_factory=dict)

    def of(self, task: str, content: tuple[object, ...], make: Callable[[], RouteDoc]) -> RouteDoc:
        """Returns a task's route: the known one if that was made of equal content, else what `make` returns."""
        known = self._routes.get(task)
        if known is None or known[0] != content:
            known = self._routes[task] = content, make()
        return known[1]

    def keep(self, tasks: Collection[str]) -> None:
        """Forgets the routes of other tasks."""
        for task in self._routes.keys() - tasks:
            del self._routes[task]
