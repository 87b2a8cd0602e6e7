"""Which topics may be published on when somebody else chose them: a caller, a device, a message's own topic. Pure."""

import re

__all__ = ["LONGEST_BYTES", "MOST_LEVELS", "has_forbidden_characters", "why_not_publishable"]

#: Control characters, surrogates and Unicode's noncharacters: MQTT lets a broker close the connection of a client that
#: sends one of these (1.5.4), and Mosquitto does.
_NO_TOPIC = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))
    + "]"
)
#: Mosquitto closes the connection of a client that publishes on a topic with more than 200 levels, and accepts such a
#: topic as Response Topic.
MOST_LEVELS = 50
LONGEST_BYTES = 512


def why_not_publishable(topic: str) -> str | None:
    """Returns why nothing is published on a topic that somebody else chose, e.g. `is empty`; None if it is allowed."""
    size, levels = len(topic.encode(errors="replace")), topic.count("/") + 1
    found = {
        "is empty": not topic,
        f"has {size} bytes, more than {LONGEST_BYTES}": size > LONGEST_BYTES,
        f"has {levels} levels, more than {MOST_LEVELS}": levels > MOST_LEVELS,
        "is the broker's own": topic.startswith("$"),
        "has a wildcard": bool(set(topic) & set("+#")),
        "has characters that no topic may have": has_forbidden_characters(topic),
    }
    return next((why for why, holds in found.items() if holds), None)


def has_forbidden_characters(topic: str) -> bool:
    """Returns whether a topic or filter has characters for which a broker may close the connection."""
    return _NO_TOPIC.search(topic) is not None
