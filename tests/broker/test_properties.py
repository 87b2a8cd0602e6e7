"""Our packing of v5 properties against paho's own, both ways; and malformed sections."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.mqtt.properties import (
    Packed,
    Properties,
    bearable,
    may_expire,
    named,
    pack,
    received,
    sends_one_by_one,
    unpack,
)
from s2m3.schemas.errors import BadInputError

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff"), max_size=30)
topics = texts.filter(lambda text: not set("+#") & set(text))
users = st.lists(st.tuples(texts, texts), max_size=4)


def paho() -> Any:
    return PahoProperties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]


@given(
    st.none() | topics,
    st.none() | st.binary(max_size=40),
    st.none() | texts,
    st.none() | st.integers(0, 2**32 - 1),
    users,
)
def test_paho_reads_what_we_pack(
    reply_to: str | None, correlation: bytes | None, kind: str | None, expiry: int | None, user: list[tuple[str, str]]
) -> None:
    message = Outgoing("t", b"", reply_to=reply_to, correlation=correlation, content_type=kind, user=tuple(user))
    packed = pack(message, expiry)
    found = paho()
    found.unpack(packed + b"payload")
    assert getattr(found, "ResponseTopic", None) == reply_to
    assert getattr(found, "CorrelationData", None) == correlation
    assert getattr(found, "ContentType", None) == kind
    assert getattr(found, "MessageExpiryInterval", None) == expiry
    assert getattr(found, "UserProperty", []) == user


@given(
    st.none() | topics,
    st.none() | st.binary(max_size=40),
    st.none() | texts,
    st.none() | st.integers(0, 2**32 - 1),
    users,
    st.none() | st.integers(0, 1),
    st.lists(st.integers(1, 268_435_455), max_size=2),
    st.none() | st.integers(1, 65_535),
    st.binary(max_size=20),
)
def test_we_read_what_paho_packs(
    reply_to: str | None,
    correlation: bytes | None,
    kind: str | None,
    expiry: int | None,
    user: list[tuple[str, str]],
    utf8: int | None,
    subscriptions: list[int],
    alias: int | None,
    payload: bytes,
) -> None:
    theirs = paho()
    given_values = {
        "ResponseTopic": reply_to,
        "CorrelationData": correlation,
        "ContentType": kind,
        "MessageExpiryInterval": expiry,
        "PayloadFormatIndicator": utf8,
        "TopicAlias": alias,
        "UserProperty": user or None,
    }
    for name, value in given_values.items():
        if value is not None:
            setattr(theirs, name, value)
    if subscriptions:
        theirs.SubscriptionIdentifier = subscriptions
    packed = theirs.pack()
    found, length = unpack(memoryview(packed + payload))
    assert length == len(packed)
    assert (found.ResponseTopic, found.CorrelationData) == (reply_to, correlation)
    assert (found.ContentType, found.MessageExpiryInterval) == (kind, expiry)
    assert (found.UserProperty or []) == user


def test_no_property_is_one_byte() -> None:
    assert pack(Outgoing("t", b""), None) == b"\0"
    found, length = unpack(memoryview(b"\0payload"))
    assert length == 1
    assert (found.ResponseTopic, found.CorrelationData, found.UserProperty) == (None, None, None)


def test_an_expiry_is_rounded_up_and_never_nothing() -> None:
    for seconds, whole in ((0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (-3.0, 1)):
        found, _ = unpack(memoryview(Packed(Outgoing("t", b"", expiry_s=seconds)).pack()))
        assert found.MessageExpiryInterval == whole


@pytest.mark.parametrize(
    "message",
    [
        Outgoing("t", b"", correlation=b"x" * 65_536),
        Outgoing("t", b"", reply_to="é" * 32_768),
        Outgoing("t", b"", user=(("k", "v" * 65_536),)),
    ],
)
def test_a_property_longer_than_the_protocol_has_room_for_is_refused(message: Outgoing) -> None:
    with pytest.raises(BadInputError, match="at most 65535"):
        pack(message, None)


def test_a_section_of_more_than_127_bytes_has_a_longer_length() -> None:
    for size in (120, 200, 20_000):
        packed = pack(Outgoing("t", b"", correlation=b"x" * size), None)
        found, length = unpack(memoryview(packed))
        assert length == len(packed)
        assert found.CorrelationData == b"x" * size


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"\x80",
        b"\xff\xff\xff\xff\x01",
        b"\x05\x02\x00",
        b"\x03\x02\x00\x00\x00\x01",
        b"\x01\x09",
        b"\x03\x09\x00\x05",
        b"\x03\x09\x00\x05hello",
        b"\x01\x01",
        b"\x02\x23\x00",
        b"\x02\x11\x00",
        b"\x04\x08\x00\x01\xff",
        b"\x02\x0b\xff",
    ],
)
def test_a_malformed_section_raises_only_what_it_says(section: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        unpack(memoryview(section))


@settings(max_examples=1000)
@given(st.binary(max_size=60))
@example(b"\x02\x02\x00")
def test_random_bytes_raise_only_what_it_says_and_never_read_past_the_section(section: bytes) -> None:
    try:
        _, length = unpack(memoryview(section))
    except (ValueError, IndexError):
        return
    assert length <= len(section)


@given(st.data())
def test_a_section_cut_short_is_refused(data: st.DataObject) -> None:
    user = tuple(data.draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=3)))
    packed = pack(Outgoing("t", b"", reply_to="a/b", correlation=b"1234", user=user), 7)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises((ValueError, IndexError)):
        unpack(memoryview(packed[:cut]))


def test_a_message_is_made_of_either_kind_of_properties() -> None:
    message = Outgoing("t", b"", reply_to="a/b", correlation=b"1", content_type="x", user=(("k", "v"),))
    packed = pack(message, 9)
    ours, _ = unpack(memoryview(packed))
    theirs = paho()
    theirs.unpack(packed)
    one, other = (received("t", b"p", found, retain=True, mid=3) for found in (ours, theirs))
    assert one == other
    assert (one.reply_to, one.correlation, one.expiry_s, one.user, one.mid) == ("a/b", b"1", 9, {"k": "v"}, 3)


def test_a_message_has_all_that_its_properties_say() -> None:
    found = Properties("reply/to", b"1", "text/plain", 7, [("a", "1"), ("b", "2")])
    message = received("t", b"payload", found, retain=True, mid=5)
    assert (message.topic, message.payload, message.retain, message.mid) == ("t", b"payload", True, 5)
    assert (message.reply_to, message.correlation, message.content_type, message.expiry_s) == (
        "reply/to",
        b"1",
        "text/plain",
        7,
    )
    assert message.user == {"a": "1", "b": "2"}


@pytest.mark.parametrize(("expiry_s", "seconds"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.2, 2), (59.9, 60)])
def test_a_message_expires_after_whole_seconds_rounded_up_and_one_at_least(expiry_s: float, seconds: int) -> None:
    assert unpack(memoryview(Packed(Outgoing("t", b"", expiry_s=expiry_s)).pack()))[0].MessageExpiryInterval == seconds
    assert unpack(memoryview(Packed(Outgoing("t", b"")).pack()))[0].MessageExpiryInterval is None


def test_a_message_without_properties_has_none_of_either_kind() -> None:
    for found in (Properties(), SimpleNamespace()):
        message = received("t", b"", found, retain=False, mid=0)
        assert (message.reply_to, message.correlation, message.content_type, message.expiry_s) == (None,) * 4
        assert (message.user, message.user_properties) == ({}, ())


def test_only_a_broker_that_is_known_by_its_topic_aliases_bears_no_expiry_on_what_is_retained() -> None:
    assert may_expire(SimpleNamespace())
    assert may_expire(SimpleNamespace(TopicAliasMaximum=10))
    assert not may_expire(SimpleNamespace(TopicAliasMaximum=4096))
    kept, passing = Outgoing("t", b"", retain=True, expiry_s=7.0), Outgoing("t", b"", expiry_s=7.0)
    assert bearable(kept, can_expire=False).expiry_s is None
    assert bearable(kept, can_expire=True) == kept
    assert bearable(passing, can_expire=False) == passing


@given(
    st.none() | topics,
    st.none() | st.binary(max_size=40),
    st.none() | texts,
    st.none() | st.floats(-5, 1e6),
    users,
)
def test_paho_packs_by_the_names_we_give_it_what_we_pack_ourselves(
    reply_to: str | None, correlation: bytes | None, kind: str | None, expiry: float | None, user: list[tuple[str, str]]
) -> None:
    message = Outgoing(
        "t", b"", reply_to=reply_to, correlation=correlation, content_type=kind, user=tuple(user), expiry_s=expiry
    )
    names = named(message)
    assert None not in names.values()
    theirs = paho()
    for name, value in names.items():
        setattr(theirs, name, value)
    found, _ = unpack(memoryview(theirs.pack()))
    ours, _ = unpack(memoryview(Packed(message).pack()))
    for name in ("ResponseTopic", "CorrelationData", "ContentType", "MessageExpiryInterval"):
        assert getattr(found, name) == getattr(ours, name)
    assert (found.UserProperty or []) == (ours.UserProperty or []) == user


def test_by_name_too_a_property_longer_than_the_protocol_has_room_for_is_refused() -> None:
    with pytest.raises(BadInputError, match="at most 65535"):
        named(Outgoing("t", b"", correlation=b"x" * 65_536))


def test_a_broker_without_shared_subscriptions_sends_one_message_after_the_other() -> None:
    assert sends_one_by_one(SimpleNamespace(SharedSubscriptionAvailable=0))
    assert not sends_one_by_one(SimpleNamespace(SharedSubscriptionAvailable=1))
    assert not sends_one_by_one(SimpleNamespace())
