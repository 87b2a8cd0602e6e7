"""How long to wait before the next try to connect: longer each time, and not for all at once."""

import random

from tenacity import RetryCallState, wait_random_exponential

__all__ = ["delay_s"]

#: Short at its longest: everything retained is to be back soon after a broker is.
_backoff = wait_random_exponential(multiplier=0.2, max=2.0)


def delay_s(attempt: int) -> float:
    """Returns the seconds to wait before an attempt, with full jitter; the first is 1."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # a number
    state.attempt_number = attempt
    return _backoff(state) + random.uniform(0.0, 0.05)  # noqa: S311  # jitter, not a secret
