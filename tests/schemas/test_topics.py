"""The topics of docs/protocol.md: where, retained or not, which QoS; and what may stand in them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.messages import NodeState
from tests.schemas.test_ids import ID

ROOT = "s2m3/v1"
#: pattern -> retained, QoS
CONTRACT = {
    "planner/state": (True, 1),
    "planner/health": (False, 0),
    "node/{node}/state": (True, 1),
    "node/{node}/profile": (True, 1),
    "node/{node}/reported": (True, 1),
    "node/{node}/load": (False, 0),
    "node/{node}/settings": (True, 1),
    "task/{task}": (True, 1),
    "plan/{node}": (True, 1),
    "route/{task}": (True, 1),
    "module/{module}/{node}/in": (False, 1),
    "client/{client}/in": (False, 1),
    "request/{task}": (False, 1),
    "request/{task}/{input}": (False, 1),
    "request/{task}/{input}/{transaction}": (False, 1),
    "response/{task}": (False, 1),
    "response/{task}/value": (False, 1),
    "event": (False, 1),
    "claims/{task}": (False, 1),
    "rollcall": (False, 1),
    "wake/{helper}": (False, 1),
    "demand/{task}": (False, 0),
    "part/wanted/{asker}": (False, 1),
    "part/offer/{holder}/{asker}": (False, 1),
    "part/request/{asker}/{holder}": (False, 0),
    "part/piece/{holder}/{asker}": (False, 0),
    "control/{verb}": (False, 1),
    "control/{verb}/response": (False, 1),
    "history/state": (True, 1),
    "history/new/{task}": (False, 1),
    "history/wanted/{asker}": (False, 1),
    "history/kept/{asker}/{task}": (False, 1),
    "history/picture/{asker}/{task}/{entry}": (False, 1),
    "history/done/{asker}": (False, 1),
}
ids = st.from_regex(ID, fullmatch=True)


def test_every_topic_of_the_contract_is_there_with_its_retained_flag_and_qos() -> None:
    ours = {t.pattern: (t.retain, t.qos) for t in topics.ALL}
    assert {pattern: kind for pattern, kind in ours.items() if not pattern.startswith(("bind/", "bridge/"))} == CONTRACT


def test_every_topic_that_is_defined_is_among_all() -> None:
    """So a new topic without a writer, a reader, or a row in docs/protocol.md fails a test."""
    defined = [value for value in vars(topics).values() if isinstance(value, topics.TopicPath)]
    assert sorted(t.pattern for t in topics.ALL) == sorted(t.pattern for t in defined)


def test_every_topic_says_what_it_is_for() -> None:
    assert all(t.meaning for t in topics.ALL)


@pytest.mark.parametrize("family", topics.ALL, ids=lambda family: family.pattern)
@given(data=st.data())
def test_the_ids_of_a_topic_are_found_again(family: topics.TopicPath, data: st.DataObject) -> None:
    fields = [part[1:-1] for part in family.pattern.split("/") if part.startswith("{")]
    chosen = {name: data.draw(ids) for name in fields}
    topic = family.at(ROOT, **chosen)
    assert topic.startswith(f"{ROOT}/")
    assert family.ids(ROOT, topic) == chosen
    assert family.ids("other/root", topic) is None
    assert family.ids(ROOT, f"{topic}/more") is None


@pytest.mark.parametrize("family", [t for t in topics.ALL if "{" in t.pattern], ids=lambda family: family.pattern)
@pytest.mark.parametrize("wrong", ["a/b", "+", "#", "a#", "", "A", "a\0b", "a b", "../state"])
def test_an_id_that_would_change_a_topic_s_shape_is_refused(family: topics.TopicPath, wrong: str) -> None:
    fields = [part[1:-1] for part in family.pattern.split("/") if part.startswith("{")]
    for name in fields:
        with pytest.raises(BadInputError):
            family.at(ROOT, **{**dict.fromkeys(fields, "fine"), name: wrong})


@pytest.mark.parametrize("name", ["My Node", "", "Node", "a_b", "a" * 65])
def test_a_topic_with_a_name_that_is_no_id_is_none_of_ours(name: str) -> None:
    assert topics.NODE_STATE.ids(ROOT, f"{ROOT}/node/{name}/state") is None
    assert topics.TASK.ids(ROOT, f"{ROOT}/task/{name}") is None


def test_an_input_may_have_the_name_that_its_model_gave_it() -> None:
    assert topics.REQUEST_INPUT.ids(ROOT, f"{ROOT}/request/porch/Left_Eye") == {"task": "porch", "input": "Left_Eye"}


def test_the_filter_of_a_family_matches_all_or_those_of_some_ids() -> None:
    assert topics.NODE_STATE.all(ROOT) == "s2m3/v1/node/+/state"
    assert topics.REQUEST_INPUT.all(ROOT, task="porch") == "s2m3/v1/request/porch/+"


def test_a_document_is_read_and_unknown_fields_are_let_through() -> None:
    assert topics.NODE_STATE.decode(b'{"state":"ready","boot":"b","newer":1}') == NodeState(state="ready", boot="b")


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b'{"state":"asleep"}', b'{"state":"ready"}'])
def test_another_document_is_bad_input_that_names_the_topic(payload: bytes) -> None:
    with pytest.raises(BadInputError, match=re.escape("node/{node}/state: ")):
        topics.NODE_STATE.decode(payload)


@given(st.binary(max_size=80))
def test_anything_at_all_is_a_document_or_bad_input(payload: bytes) -> None:
    for topic in topics.ALL:
        if isinstance(topic, topics.Topic):
            try:
                topic.decode(payload)
            except BadInputError as error:
                assert topic.pattern in error.detail  # noqa: PT017  # it may also be a document
