"""Long work in slices: between two of them a module lets its caller look at the deadline, and tell that it gets on.

A module calls `between_slices` between two forward passes or two files. Whoever runs modules sets what that does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["between_slices", "sliced"]

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("between_slices", default=None)


def between_slices() -> None:
    """Looks at the deadline of the work in progress; does nothing outside an agent.

    Raises:
        RequestTimeoutError: The result is not wanted any more: the deadline of all requests in the batch has passed.
    """
    check = _CHECK.get()
    if check is not None:
        check()


@contextmanager
def sliced(check: Callable[[], None]) -> Iterator[None]:
    """Context in which `between_slices` calls `check`, in this thread."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)
