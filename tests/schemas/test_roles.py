"""Every topic has a writer and a reader among the roles: a new one that nobody may use is found here."""

import pytest

from s2m3.schemas import topics
from s2m3.schemas.roles import ROLES, Rights, Role, rights_of

ROOT = "s2m3/v1"
#: Everybody is called so, and every id in a topic is: what a login may do with topics of its own counts.
NAME = "drain"
#: What a bridge between brokers may do says nothing of who uses a topic: it passes on all of them.
PARTIES: tuple[Role, ...] = tuple(role for role in ROLES if role != "neighbour")


def rights(role: Role) -> Rights:
    return rights_of(ROOT, role, NAME, tasks=("+",) if role in ("device", "viewer") else ())


def matches(topic_filter: str, topic: str) -> bool:
    wanted, levels = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def example(path: topics.TopicPath) -> list[str]:
    """One topic of a family; inboxes are also named after nodes."""
    ids = [part[1:-1] for part in path.pattern.split("/") if part.startswith("{")]
    return [path.at(ROOT, **dict.fromkeys(ids, name)) for name in (NAME, f"node-{NAME}")]


@pytest.mark.parametrize("path", topics.ALL, ids=lambda path: path.pattern)
def test_every_topic_has_a_writer_and_a_reader(path: topics.TopicPath) -> None:
    readers = {role for role in PARTIES for f in rights(role).reads for t in example(path) if matches(f, t)}
    writers = {role for role in PARTIES for f in rights(role).writes for t in example(path) if matches(f, t)}
    assert readers, f"{path.pattern}: no role of schemas/roles.py reads it"
    assert writers, f"{path.pattern}: no role of schemas/roles.py writes it"


def test_a_topic_that_no_role_knows_is_found() -> None:
    new = topics.Raw("gossip/{node}", "a topic that somebody added and gave nobody")
    assert not [
        f for role in PARTIES for f in rights(role).reads + rights(role).writes for t in example(new) if matches(f, t)
    ]


@pytest.mark.parametrize("role", ["planner", "agent", "client", "viewer", "operator", "bridge"])
def test_whoever_asks_the_roll_call_may(role: Role) -> None:
    assert topics.ROLLCALL.at(ROOT) in rights(role).writes


@pytest.mark.parametrize("role", ["planner", "agent", "bridge"])
def test_whoever_answers_the_roll_call_may_hear_it(role: Role) -> None:
    assert topics.ROLLCALL.at(ROOT) in rights(role).reads


@pytest.mark.parametrize("role", ["device", "home-assistant"])
def test_nobody_else_may_have_the_whole_site_say_everything_again(role: Role) -> None:
    assert topics.ROLLCALL.at(ROOT) not in rights(role).writes
