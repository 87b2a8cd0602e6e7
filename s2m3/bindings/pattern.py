"""Topic filters and templates of bindings: the text that wildcards matched, topics of answers, loops. Pure."""

import re
from collections.abc import Mapping

from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.publishable import MOST_LEVELS, has_forbidden_characters, why_not_publishable

__all__ = ["captures", "check_result_topic", "check_topics", "loops", "may_hold_answer", "overlap", "result_topic"]

_FIELD = re.compile(r"\{(\w*)\}")


def check_topics(binding: Binding, root: str) -> None:
    """Checks the source and the result topic of a binding.

    Raises:
        BadInputError: The source is no topic filter, a field is unknown, a topic is under the site's root, or the
            binding would receive its own answers.
    """
    source, publish = binding.source, binding.publish
    if not _is_filter(source):
        raise BadInputError(f"source {source!r} is not a topic filter")
    if source.count("/") >= MOST_LEVELS or publish.count("/") >= MOST_LEVELS:
        raise BadInputError(f"a topic of a binding has more than {MOST_LEVELS} levels")
    if overlap(source, f"{root}/#") and not source.startswith(f"{root}/response/"):
        raise BadInputError(f"source {source!r} would hear what is said under {root} itself: only {root}/response/…")
    target = _reach(binding)
    if not _is_filter(target) or any(c in _FIELD.sub("", publish) for c in "+#{}"):
        raise BadInputError(f"result topic {publish!r} is not a topic")
    if overlap(target, f"{root}/#"):
        raise BadInputError(f"result topic {publish!r} is under {root}: answers of bindings go elsewhere")
    if overlap(target, source):
        raise BadInputError(f"result topic {publish!r} is heard by the source {source!r}: the binding would never end")


def captures(topic_filter: str, topic: str) -> tuple[str, ...]:
    """Returns the text that each wildcard of a filter matches in a topic."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    found = [levels[i] for i, want in enumerate(wanted) if want == "+"]
    if wanted[-1] == "#":
        found.append("/".join(levels[len(wanted) - 1 :]))
    return tuple(found)


def result_topic(name: str, binding: Binding, topic: str) -> str:
    """Returns the topic of the answer to a message on a topic.

    Raises:
        BadInputError: With the texts that the wildcards matched it is no topic that may be published on.
    """
    values = {"task": binding.task, "binding": name}
    values |= {str(i): value for i, value in enumerate(captures(binding.source, topic), 1)}
    return check_result_topic(_FIELD.sub(lambda field: values[field[1]], binding.publish))


def check_result_topic(topic: str) -> str:
    """Returns the topic if a binding may publish on it; `check_topics` refuses topics under the site's root.

    Raises:
        BadInputError: The topic is empty, too long, the broker's own, or has characters that no topic has.
    """
    why = why_not_publishable(topic)
    if why is not None:
        raise BadInputError(f"the result topic {topic[:80]!r} {why}")
    return topic


def may_hold_answer(topic: str, root: str) -> bool:
    """Returns whether a binding may have published on a topic that the report of an earlier bridge names."""
    try:
        check_result_topic(topic)
    except BadInputError:
        return False
    return not overlap(topic, f"{root}/#")


def overlap(one: str, other: str) -> bool:
    """Returns whether some topic matches both filters (MQTT 5, section 4.7)."""
    left, right = one.split("/"), other.split("/")
    for i in range(max(len(left), len(right))):
        a = left[i] if i < len(left) else None
        b = right[i] if i < len(right) else None
        if "#" in (a, b):  # matches all further levels, and none
            return True
        if a is None or b is None or ("+" not in (a, b) and a != b):
            return False
    return True


def loops(bindings: Mapping[str, Binding]) -> dict[str, tuple[str, ...]]:
    """Returns, for each binding whose answers return to it through other bindings, one such cycle."""
    heard_by = {
        name: [other for other, theirs in bindings.items() if overlap(_reach(binding), theirs.source)]
        for name, binding in bindings.items()
    }
    found = {name: _way_back(name, heard_by) for name in bindings}
    return {name: way for name, way in found.items() if way}


def _way_back(start: str, heard_by: Mapping[str, list[str]]) -> tuple[str, ...]:
    ways: list[tuple[str, ...]] = [(start, other) for other in heard_by[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [(*way, other) for other in heard_by[way[-1]]]
    return ()


def _reach(binding: Binding) -> str:
    """Returns the filter of all topics that a binding may publish on.

    Raises:
        BadInputError: The template has a field that the source does not fill.
    """
    wildcards = [level for level in binding.source.split("/") if level in ("+", "#")]
    known = {"task": binding.task, "binding": "+"} | {str(i): level for i, level in enumerate(wildcards, 1)}
    levels: list[str] = []
    for level in binding.publish.split("/"):
        fields = _FIELD.findall(level)
        if unknown := [field for field in fields if field not in known]:
            raise BadInputError(f"result topic {binding.publish!r} has {{{unknown[0]}}}; there are: {', '.join(known)}")
        if any(known[field] == "#" for field in fields):
            return "/".join([*levels, "#"])
        levels.append("+" if any(known[field] == "+" for field in fields) else level.replace("{task}", binding.task))
    return "/".join(levels)


def _is_filter(text: str) -> bool:
    levels = text.split("/")
    return (
        not text.startswith("$")
        and not has_forbidden_characters(text)
        and "#" not in "/".join(levels[:-1])
        and all(level in ("+", "#") or not set(level) & set("+#") for level in levels)
    )
