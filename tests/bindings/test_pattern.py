"""Topic filters and templates: what wildcards stand for, where answers go, and that nothing goes round in circles."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.bindings.pattern import captures, check_topics, loops, overlap, result_topic
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError

ROOT = "s2m3/v1"


def _binding(source: str, publish: str) -> Binding:
    return Binding(source=source, task="porch", input="image", publish=publish)


@pytest.mark.parametrize(
    ("source", "publish", "topic", "target"),
    [
        (
            "frigate/+/person/snapshot",
            "home/{1}/caption",
            "frigate/front_door/person/snapshot",
            "home/front_door/caption",
        ),
        ("frigate/+/+/snapshot", "home/{2}/at-{1}", "frigate/yard/dog/snapshot", "home/dog/at-yard"),
        ("zigbee2mqtt/+", "{task}/{binding}/{1}", "zigbee2mqtt/0x00158d0001", "porch/b/0x00158d0001"),
        ("cameras/#", "seen/{1}", "cameras/north/gate", "seen/north/gate"),
        ("door", "who", "door", "who"),
    ],
)
def test_an_answer_goes_where_the_template_says(source: str, publish: str, topic: str, target: str) -> None:
    binding = _binding(source, publish)
    check_topics(binding, ROOT)
    assert result_topic("b", binding, topic) == target


@pytest.mark.parametrize(
    ("source", "publish", "why"),
    [
        ("home/a", "home/a", "never end"),
        ("home/+/x", "home/{1}/x", "never end"),
        ("home/#", "home/caption", "never end"),
        ("a/+", "{1}/b", "never end"),
        ("a/#", "{1}", f"under {ROOT}"),
        ("a/+/+", "{1}/{2}/caption", f"under {ROOT}"),
        ("a/b/+", "{2}", "there are: task, binding, 1"),
        ("a/b/+", "x/{}", "there are"),
        ("a/b", "x/+", "not a topic"),
        ("a/b", "x/#", "not a topic"),
        ("a/b", "$SYS/x", "not a topic"),
        ("a/b", "x/{1", "not a topic"),
        ("a/b#", "x", "not a topic filter"),
        ("a/#/b", "x", "not a topic filter"),
        ("a+/b", "x", "not a topic filter"),
        ("$share/g/a", "x", "not a topic filter"),
        ("$SYS/broker/uptime", "x", "not a topic filter"),
        ("#", "x", f"under {ROOT} itself"),
        (f"{ROOT}/request/porch", "x", f"under {ROOT} itself"),
        ("a/b", f"{ROOT}/plan/pi", f"under {ROOT}"),
        ("a/b", f"{ROOT}/bridge/ask/vqa", f"under {ROOT}"),
    ],
)
def test_a_wrong_or_endless_binding_is_refused_and_told_why(source: str, publish: str, why: str) -> None:
    with pytest.raises(BadInputError, match=re.escape(why)):
        check_topics(_binding(source, publish), ROOT)


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        (["a"] * 201, "levels"),
        (["a"] * 51, "levels"),
        (["a" * 600], "bytes"),
        ([""], "empty"),
        (["$SYS", "x"], "own"),
        (["\ufffe"], "no topic"),
        (["\x85"], "no topic"),
    ],
)
def test_29_what_wildcards_stand_for_makes_no_result_topic_that_a_broker_cuts(levels: list[str], why: str) -> None:
    binding = _binding("in/#", "{1}")
    with pytest.raises(BadInputError, match=why):
        result_topic("b", binding, "in/" + "/".join(levels))


@pytest.mark.parametrize(("source", "publish"), [("a/" * 60 + "b", "x"), ("x", "a/" * 60 + "b")])
def test_29_a_binding_of_too_many_levels_is_refused(source: str, publish: str) -> None:
    with pytest.raises(BadInputError, match="levels"):
        check_topics(_binding(source, publish), ROOT)


def test_answers_of_a_task_may_be_the_input_of_another() -> None:
    check_topics(_binding(f"{ROOT}/response/transcription", "home/intent"), ROOT)


def test_bindings_that_feed_each_other_in_a_circle_are_all_named_and_others_are_not() -> None:
    ring = {
        "a": _binding("in/+", "mid/{1}"),
        "b": _binding("mid/#", "far/out"),
        "c": _binding("far/+", "in/again"),
        "chain": _binding("mid/x", "end"),
        "other": _binding("x", "y"),
    }
    found = loops(ring)
    assert found.keys() == {"a", "b", "c"}
    assert found["a"] == ("a", "b", "c", "a")
    assert loops({name: ring[name] for name in ("a", "b", "chain", "other")}) == {}


LEVELS = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=4)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.sampled_from(["a", "b", "", "+"]), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
)


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT's rule as a regular expression: another way than the code's."""
    parts = [{"+": "[^/]*", "#": ".*"}.get(level, re.escape(level)) for level in topic_filter.split("/")]
    pattern = "/".join(parts)
    return re.fullmatch(re.sub(r"/\.\*$", "(/.*)?", pattern), topic) is not None


@given(FILTERS, FILTERS, LEVELS)
def test_filters_that_share_a_topic_overlap(one: str, other: str, levels: list[str]) -> None:
    topic = "/".join(levels)
    if _matches(one, topic) and _matches(other, topic):
        assert overlap(one, other)
        assert overlap(other, one)


@given(FILTERS, FILTERS)
def test_filters_that_overlap_share_a_topic(one: str, other: str) -> None:
    if overlap(one, other):
        left, right = (f.split("/") for f in (one, other))
        longest = max(len(left), len(right))
        pairs = [
            (left[i] if i < len(left) else left[-1], right[i] if i < len(right) else right[-1]) for i in range(longest)
        ]
        levels = []
        for a, b in pairs:
            if (a, b) == ("#", "#"):
                break
            levels.append(next((x for x in (a, b) if x not in ("+", "#")), "z"))
        witnesses = ["/".join(levels[:n]) for n in range(1, len(levels) + 1)]
        assert any(_matches(one, w) and _matches(other, w) for w in witnesses)


@given(FILTERS, LEVELS)
def test_what_wildcards_stood_for_put_back_gives_the_topic(topic_filter: str, levels: list[str]) -> None:
    topic = "/".join(levels)
    if _matches(topic_filter, topic):
        found = list(captures(topic_filter, topic))
        filled = "/".join(found.pop(0) if level in ("+", "#") else level for level in topic_filter.split("/"))
        assert filled in (topic, f"{topic}/")  # `a/#` matches `a`: the rest is empty
        assert found == []
