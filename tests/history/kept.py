"""Answers as a history keeps them, for tests."""

from s2m3.schemas.bridge import BridgeAnswer
from s2m3.schemas.history import HistoryEntry

#: Milliseconds since 1970 of the first answer.
START_MS = 1_760_000_000_000


def entry(
    number: int, task: str = "porch", *, state: str = "a cat", topic: str = "cam/porch", **more: object
) -> HistoryEntry:
    """Answer `number`, one second after the one before it."""
    answer = BridgeAnswer(
        event_type="answered", state=state, at="2025-10-09T08:53:20+00:00", source="binding:porch", topic=topic
    )
    at_ms = START_MS + 1_000 * number
    return HistoryEntry.model_validate(
        {"id": at_ms, "task": task, "at_ms": at_ms, "answer": answer, "asked": {"text": "a cat, a dog"}} | more
    )
