"""What the topic of a plain request says: the input that its bytes are, and the caller's transaction. Pure."""

from s2m3.schemas.wire.plain import Transaction, is_transaction, transaction_of

__all__ = ["raw_levels", "transaction_in"]


def raw_levels(root: str, topic: str) -> tuple[str, str] | None:
    """Returns the levels `input` and `transaction` ("" without one) of a topic for raw bytes; None if it takes JSON.

    Args:
        root: First levels of every topic of the site.
        topic: A topic of `request/{task}`, `request/{task}/{input}` or `request/{task}/{input}/{transaction}`.
    """
    _, _, *levels = topic.removeprefix(f"{root}/").split("/")
    return (levels[0], "/".join(levels[1:])) if levels else None


def transaction_in(root: str, topic: str, payload: bytes) -> Transaction | None:
    """Returns the caller's transaction, of an invalid request too: from the topic of raw bytes, else from the JSON."""
    levels = raw_levels(root, topic)
    if levels is None:
        return transaction_of(payload)
    return levels[1] if levels[1] and is_transaction(levels[1]) else None
