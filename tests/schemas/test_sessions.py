"""Client ids: everybody's session is known by name on one broker, of several sites, and with a key by nobody else."""

import hmac

import pytest

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
    assert planner_client_id(OTHER) == "s2m3-planner-cellar-v2"
    assert node_client_id(OTHER, "pi5") == "s2m3-node-cellar-v2-pi5"
    assert (site_id("s2m3/v1"), site_id("cellar/v2")) == ("s2m3", "s2m3-cellar-v2")


def test_with_a_session_key_an_id_has_a_tag_that_only_those_with_the_key_can_make() -> None:
    keyed = BrokerSettings.load(session_key="k" * 16)
    tag = hmac.new(b"k" * 16, b"s2m3-node-pi5", "sha256").hexdigest()[:16]
    assert node_client_id(keyed, "pi5") == f"s2m3-node-pi5.{tag}"
    assert node_client_id(BrokerSettings.load(session_key="l" * 16), "pi5") != node_client_id(keyed, "pi5")
    assert node_client_id(keyed, "pi6").partition(".")[2] != tag


@pytest.mark.parametrize("client_id", ["s2m3-node-pi5", "s2m3-node-pi5.0123456789abcdef", "s2m3-node-pi5.a.b"])
def test_the_tag_is_told_to_nobody(client_id: str) -> None:
    assert without_tag(client_id) == "s2m3-node-pi5"
