"""The text of an error about a name that does not exist: what does exist, the nearest names first, bounded. Pure."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["among", "no_such"]

#: Most names in one text: a site may have thousands of tasks.
_MOST = 12
_LONGEST_NAME = 64


def no_such(what: str, name: str | None, known: Iterable[str]) -> str:
    """Returns the text for a name that does not exist: `no node 'pi6'; there are: pi5, desktop`.

    Args:
        what: What the name should have named: task, node, …
        name: The name, of any length; None if none was given.
        known: The names that there are.
    """
    given = "" if name is None else f" {name[:_LONGEST_NAME]!r}"
    return f"no {what}{given}; there are: {among(known, name)}"


def among(known: Iterable[str], near: str | None = None) -> str:
    """Returns names for people, separated by commas: those that are similar to `near` first, then in order.

    Of more than a dozen, the others are counted; `none` if there are none.
    """
    names = sorted(set(known))
    close = get_close_matches(near[:_LONGEST_NAME].lower(), names, n=_MOST) if near else []
    shown = [*close, *(name for name in names if name not in close)][:_MOST]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more or "none"
