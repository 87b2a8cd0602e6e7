"""Exponential back-off with full jitter between connection attempts."""

import random

__all__ = ["delay_s"]

#: The longest is short, so that clients publish their retained documents soon after a broker returns.
_FIRST_S, _LONGEST_S = 0.2, 2.0
_MOST_DOUBLINGS = 16


def delay_s(attempt: int) -> float:
    """Returns the seconds to wait before an attempt, with full jitter; attempts count from 1."""
    longest = min(_LONGEST_S, _FIRST_S * 2 ** min(attempt - 1, _MOST_DOUBLINGS))
    return random.uniform(0.0, longest) + random.uniform(0.0, 0.05)  # noqa: S311  # jitter, not a secret
