"""Exponential back-off with full jitter between connection attempts."""

import random

from tenacity import RetryCallState, wait_random_exponential

__all__ = ["delay_s"]

#: The maximum is short, so that clients publish their retained documents soon after a broker returns.
_backoff = wait_random_exponential(multiplier=0.2, max=2.0)


def delay_s(attempt: int) -> float:
    """Returns the seconds to wait before an attempt, with full jitter; attempts count from 1."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # unused
    state.attempt_number = attempt
    return _backoff(state) + random.uniform(0.0, 0.05)  # noqa: S311  # jitter, not a secret
