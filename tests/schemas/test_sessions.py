"""Client ids: everybody's session is known by name on one broker, of several sites, and with a key by nobody else."""

import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from s2m3.schemas.sessions import (
    bridge_client_id,
    node_client_id,
    planner_client_id,
    site_id,
    task_client_id,
    without_tag,
)
from s2m3.schemas.settings import BrokerSettings

USUAL = BrokerSettings()
OTHER = BrokerSettings(root="cellar/v2")


def test_each_party_has_a_session_of_its_own() -> None:
    """Old and new releases must find each other's sessions: these ids are part of the protocol."""
    assert planner_client_id(USUAL) == "s2m3-planner"
    assert node_client_id(USUAL, "pi5") == "s2m3-node-pi5"
    assert task_client_id(USUAL, "porch") == "s2m3-front-porch"
    assert bridge_client_id(USUAL, "7f") == "s2m3-bridge-7f"
    assert bridge_client_id(USUAL, "7f", "ask") == "s2m3-bridge-7f-ask"
    assert bridge_client_id(USUAL, "", "ask") == "s2m3-bridge-ask"


def test_two_sites_on_one_broker_share_no_session() -> None:
    assert planner_client_id(OTHER) == "s2m3-planner:cellar_v2"
    assert node_client_id(OTHER, "pi5") == "s2m3-node:cellar_v2:pi5"
    assert bridge_client_id(OTHER, "7f", "ask") == "s2m3-bridge:cellar_v2:7f:ask"
    keyed = OTHER.model_copy(update={"session_key": SecretStr("k" * 16)})
    assert without_tag(node_client_id(keyed, "pi5")) == "s2m3-node-cellar-v2-pi5"  # as in earlier releases
    assert (site_id("s2m3/v1"), site_id("cellar/v2")) == ("s2m3", "s2m3-cellar-v2")


ROOTS = st.lists(st.from_regex(r"[a-c][a-c-]{0,3}", fullmatch=True), min_size=1, max_size=3).map("/".join)
NAMES = st.from_regex(r"[a-c][a-c-]{0,6}", fullmatch=True)


@given(one=st.tuples(st.just("s2m3/v1") | ROOTS, NAMES), other=st.tuples(st.just("s2m3/v1") | ROOTS, NAMES))
@example(one=("garage", "pi"), other=("s2m3/v1", "garage-pi"))
@example(one=("a/b", "c"), other=("a-b", "c"))
@example(one=("a", "b-c"), other=("a/b", "c"))
def test_39_no_two_sites_share_a_client_id_whatever_their_roots_and_names(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    for make in (node_client_id, task_client_id):
        ids = [make(BrokerSettings(root=root), name) for root, name in (one, other)]
        assert (ids[0] == ids[1]) is (one == other)
    planners = [planner_client_id(BrokerSettings(root=root)) for root, _ in (one, other)]
    assert (planners[0] == planners[1]) is (one[0] == other[0])


def test_with_a_session_key_an_id_has_a_tag_that_only_those_with_the_key_can_make() -> None:
    keyed = BrokerSettings.load(session_key="k" * 16)
    tag = hmac.new(b"k" * 16, b"s2m3-node-pi5", "sha256").hexdigest()[:16]
    assert node_client_id(keyed, "pi5") == f"s2m3-node-pi5.{tag}"
    assert node_client_id(BrokerSettings.load(session_key="l" * 16), "pi5") != node_client_id(keyed, "pi5")
    assert node_client_id(keyed, "pi6").partition(".")[2] != tag


@pytest.mark.parametrize("client_id", ["s2m3-node-pi5", "s2m3-node-pi5.0123456789abcdef", "s2m3-node-pi5.a.b"])
def test_the_tag_is_told_to_nobody(client_id: str) -> None:
    assert without_tag(client_id) == "s2m3-node-pi5"
