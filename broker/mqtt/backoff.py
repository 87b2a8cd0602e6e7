"""Exponential back-off with full jitter between connection attempts."""

import random

__all__ = ["delay_s"]

#: The longest is short, so that clients publish their retained documents soon after a broker returns.
_FIRST_S, _LONGEST_S = 0.2, 2.0


def delay_s(attempt: int) -> float:
    """Returns the seconds to wait before an attempt, with full jitter; attempts count from 1."""
    # imported by a process that has lost its broker, and by no other
    from tenacity import RetryCallState, wait_random_exponential  # noqa: PLC0415

    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # unused
    state.attempt_number = attempt
    wait = wait_random_exponential(multiplier=_FIRST_S, max=_LONGEST_S)
    return wait(state) + random.uniform(0.0, 0.05)  # noqa: S311  # jitter, not a secret
