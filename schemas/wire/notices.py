"""Messages of the data plane without payload: their user properties say it all."""

from s2m3.schemas.wire.work import Work

__all__ = ["encode_stop", "encode_working"]


def encode_stop(work: Work) -> tuple[tuple[str, str], ...]:
    """Returns the user properties of the message, without payload, that stops a work whose result is not needed."""
    return (("step", work.step), ("attempt", str(work.attempt)), ("stop", "1"))


def encode_working(work: Work) -> tuple[tuple[str, str], ...]:
    """Returns the user properties of the message, without payload, that tells a requester: the work is under way."""
    return (("step", work.step), ("attempt", str(work.attempt)), ("working", "1"))
