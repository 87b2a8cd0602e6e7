"""Checks the Response Topic that a caller sets, so that no caller can make us publish on other topics of ours."""

from functools import lru_cache

from s2m3.schemas import topics

__all__ = ["is_client_inbox", "may_answer_at"]

#: Longest topic, characters.
_LONGEST = 1024


def is_client_inbox(root: str, topic: str) -> bool:
    """Returns whether a topic is a client's inbox, the only topics to which the data plane answers."""
    return len(topic) <= _LONGEST and _is_client_inbox(root, topic)


@lru_cache(maxsize=1024)
def _is_client_inbox(root: str, topic: str) -> bool:
    return topics.CLIENT_IN.ids(root, topic) is not None and _publishable(topic)


def may_answer_at(root: str, topic: str | None) -> bool:
    """Returns whether a plain request may be answered on a topic: outside our root, an inbox, or a response topic."""
    if topic is None or not _publishable(topic):
        return topic is None
    ours = topic == root or topic.startswith(f"{root}/")
    return not ours or is_client_inbox(root, topic) or topics.RESPONSE.ids(root, topic) is not None


def _publishable(topic: str) -> bool:
    return bool(topic) and not topic.startswith("$") and not any(c in topic for c in "+#\0")
