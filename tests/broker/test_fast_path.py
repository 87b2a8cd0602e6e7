"""The private names of paho that the fast path relies on: a paho without one of them is noticed."""

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from s2m3.broker.mqtt.fast_path import ATTRIBUTES, METHODS, changed_in


def _client(kind: type[paho.Client] = paho.Client) -> paho.Client:
    return kind(CallbackAPIVersion.VERSION2)


def test_the_paho_that_is_pinned_has_every_name() -> None:
    assert changed_in(_client()) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_gone_is_noticed(name: str) -> None:
    changed = type("Changed", (paho.Client,), {name: None})
    assert changed_in(_client(changed)) == [name]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_one_more_parameter_is_noticed(name: str) -> None:
    def with_one_more(self: paho.Client, more: int, *_: object) -> None:
        """Stands where paho has another signature."""

    changed = type("Changed", (paho.Client,), {name: with_one_more})
    assert changed_in(_client(changed)) == [name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_is_gone_or_of_another_type_is_noticed(name: str) -> None:
    client = _client()
    setattr(client, name, 7)
    assert changed_in(client) == [name]
    delattr(client, name)
    assert changed_in(client) == [name]


def test_a_packet_that_is_held_otherwise_is_noticed() -> None:
    client = _client()
    setattr(client, "_in_packet", {"command": 0, "body": b"", "remaining_length": 0, "to_process": 0})  # noqa: B010  # private
    assert changed_in(client) == ["_in_packet[packet]"]
