"""Where an answer may be sent: a caller names its Response Topic, and must not make us write what is not an answer."""

from functools import lru_cache

from s2m3.schemas import topics

__all__ = ["is_client_inbox", "may_answer_at"]

#: Characters of a topic: a root may have many levels, but not so many.
_LONGEST = 1024


def is_client_inbox(root: str, topic: str) -> bool:
    """Returns whether a topic is a Client's inbox: the only place the data plane answers to."""
    return len(topic) <= _LONGEST and _is_client_inbox(root, topic)


@lru_cache(maxsize=1024)
def _is_client_inbox(root: str, topic: str) -> bool:
    return topics.CLIENT_IN.ids(root, topic) is not None and _publishable(topic)


def may_answer_at(root: str, topic: str | None) -> bool:
    """Returns whether a plain request may be answered there: outside our root, or inside where answers go."""
    if topic is None or not _publishable(topic):
        return topic is None
    ours = topic == root or topic.startswith(f"{root}/")
    return not ours or is_client_inbox(root, topic) or topics.RESPONSE.ids(root, topic) is not None


def _publishable(topic: str) -> bool:
    return bool(topic) and not topic.startswith("$") and not any(c in topic for c in "+#\0")
