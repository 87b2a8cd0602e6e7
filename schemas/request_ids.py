"""Request ids: 16 bytes, of which the first half of a plain request's says what it asks.

An agent's supervisor reads them too, so this file imports nothing that takes memory.
"""

import os

__all__ = ["CONTENT_BYTES", "REQUEST_ID_BYTES", "content_of", "new_request_id", "request_id_of"]

REQUEST_ID_BYTES = 16
#: Bytes of a plain request's id that are equal for equal requests.
CONTENT_BYTES = 8
#: Ids that are drawn and not used yet. They come from the system, so that nobody can predict another caller's id; they
#: are drawn together, because a system call costs more than the rest of a request's id.
_drawn: list[bytes] = []
_AT_ONCE = 64
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)


def request_id_of(content: bytes) -> bytes:
    """Returns a request id whose first half says what the request asks, and whose second half is random.

    Args:
        content: 8 bytes, equal for equal requests. Nobody without the site's key may be able to compute them.
    """
    return content + new_request_id()[CONTENT_BYTES:]


def content_of(request: bytes) -> bytes:
    """Returns the first half of a request id: equal for equal plain requests, random for those of a Client."""
    return request[:CONTENT_BYTES]


def new_request_id() -> bytes:
    """Returns 16 random bytes, the Correlation Data of all messages of a request."""
    try:
        return _drawn.pop()
    except IndexError:
        drawn = os.urandom(REQUEST_ID_BYTES * _AT_ONCE)
        _drawn.extend(drawn[at : at + REQUEST_ID_BYTES] for at in range(REQUEST_ID_BYTES, len(drawn), REQUEST_ID_BYTES))
        return drawn[:REQUEST_ID_BYTES]
