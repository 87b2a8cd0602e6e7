"""Checks the Response Topic that a caller sets, so that no caller can make us publish on other topics of ours."""

from functools import lru_cache

from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.publishable import LONGEST_BYTES, why_not_publishable

__all__ = ["check_reply_topic", "is_client_inbox"]

#: What a task's gateway publishes under the root: a caller may name these of its own task.
_OF_THE_TASK: tuple[topics.TopicPath, ...] = (topics.RESPONSE, topics.RESPONSE_VALUE)
_SHOWN = 80


def is_client_inbox(root: str, topic: str) -> bool:
    """Returns whether a topic is a client's inbox, the only topics to which the data plane answers."""
    return len(topic) <= LONGEST_BYTES and _is_client_inbox(root, topic)


@lru_cache(maxsize=1024)
def _is_client_inbox(root: str, topic: str) -> bool:
    return topics.CLIENT_IN.ids(root, topic) is not None and why_not_publishable(topic) is None


def check_reply_topic(root: str, task: str, topic: str | None) -> str | None:
    """Returns the Response Topic of a plain request, unchanged, if the request may be answered there.

    These are topics outside our root, clients' inboxes, and where this task's answers go: on another task's response
    topic the answer would be a forged one of that task.

    Raises:
        BadInputError: It is another topic under our root, or none that may be published on.
    """
    if topic is None:
        return None
    why = why_not_publishable(topic)
    if why is None and not _is_allowed(root, task, topic):
        why = f"is under {root}, and neither a client's inbox nor {topics.RESPONSE.at(root, task=task)}"
    if why is not None:
        raise BadInputError(f"the Response Topic {topic[:_SHOWN]!r} {why}")
    return topic


def _is_allowed(root: str, task: str, topic: str) -> bool:
    if topic != root and not topic.startswith(f"{root}/"):
        return True
    return is_client_inbox(root, topic) or any(path.ids(root, topic) == {"task": task} for path in _OF_THE_TASK)
