"""Whatever a login of role `device` may send, in any number: no node is lost, and the site answers everybody else.

Topics, properties and payloads are drawn by hypothesis; a message that the broker refuses, or cuts the device for, is
part of what a device may try. `make chaos` sends 10,000.
"""

import json
import ssl
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from s2m3.client import Client
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.secured.secured import SecuredSite

_ROOT = "s2m3/v1"
#: Messages between two looks at the site.
_BATCH = 50
_LEVELS = st.sampled_from(["a", "", "noop", "left", "+", "#", "$SYS", "é", "x" * 300, "..", "\u0001"])


def _deep(levels: int) -> str:
    return "/".join(["a"] * levels)


#: What it may publish on, and what is not its own: the broker refuses that.
_topics = st.one_of(
    st.sampled_from([f"{_ROOT}/request/noop", f"{_ROOT}/request/noop/left", f"{_ROOT}/request/noop/left/7"]),
    st.sampled_from([f"{_ROOT}/request/none", f"{_ROOT}/request/noop/middle", f"{_ROOT}/request/{'n' * 70}"]),
    st.sampled_from([f"{_ROOT}/response/noop", f"{_ROOT}/plan/a", f"{_ROOT}/node/a/state", f"{_ROOT}/client/cam/in"]),
    st.lists(_LEVELS, min_size=1, max_size=5).map(lambda levels: f"{_ROOT}/request/" + "/".join(levels)),
)
_reply_topics = st.one_of(
    st.sampled_from([f"{_ROOT}/client/cam/in", f"{_ROOT}/response/noop", f"{_ROOT}/response/other", "home/bell"]),
    st.sampled_from([f"{_ROOT}/plan/a", f"{_ROOT}/request/noop", f"{_ROOT}/node/a/state", "$SYS/broker", "/", "é/ü"]),
    st.sampled_from([2, 199, 200, 201, 202, 400, 30_000]).map(_deep),
    st.sampled_from([1_024, 1_025, 32_768, 65_535]).map(lambda length: "x" * length),
    st.text(min_size=1, max_size=30),
)
_numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 1e308, 86_400, 2**63]))
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
_options = st.dictionaries(st.sampled_from(["max_tokens", "stop", "seed", "temperature", "x"]), _json, max_size=3)
_requests = st.fixed_dictionaries(
    {"inputs": st.one_of(_json, st.dictionaries(st.sampled_from(["left", "right", "x"]), _json, max_size=3))},
    optional={"transaction": _json, "deadline_s": _numbers, "stream": _json, "options": st.one_of(_json, _options)},
).map(lambda document: json.dumps(document).encode())
_nested = st.integers(min_value=10, max_value=20_000).map(lambda deep: b'{"inputs":' + b"[" * deep)
_payloads = st.one_of(
    _requests,
    _nested,
    st.binary(max_size=200),
    st.sampled_from([b"", b"null", b"{}", b"\xff\xd8\xff\xe0" + bytes(2_000), b"x" * 300_000]),
    _json.map(lambda value: json.dumps(value).encode()),
)
_pairs = st.lists(st.tuples(st.text(max_size=10), st.text(max_size=10)), max_size=4)
_properties = st.fixed_dictionaries(
    {},
    optional={
        "ResponseTopic": _reply_topics,
        "CorrelationData": st.binary(max_size=300),
        "ContentType": st.one_of(
            st.sampled_from(["audio/pcm", "application/json", "image/jpeg"]), st.text(max_size=40)
        ),
        "UserProperty": st.one_of(_pairs, st.just([("step", "left"), ("attempt", "x"), ("asker", "7")])),
        "MessageExpiryInterval": st.sampled_from([0, 1, 2**32 - 1]),
        "PayloadFormatIndicator": st.sampled_from([0, 1]),
    },
)
_asked_back = st.tuples(_properties, _reply_topics).map(lambda drawn: {**drawn[0], "ResponseTopic": drawn[1]})
_anything = st.tuples(_topics, _payloads, _properties, st.sampled_from([0, 1, 2]), st.booleans())
#: What a gateway takes and answers, with one thing about it that is odd: where to, with which words, how it is asked.
_right = [
    b'{"inputs": {"left": 1, "right": 2}}',
    b'{"transaction": "7", "inputs": {"left": 1, "right": 2}, "deadline_s": 5}',
]
_taken = st.tuples(
    st.just(f"{_ROOT}/request/noop"), st.sampled_from(_right), _asked_back, st.sampled_from([0, 1, 2]), st.booleans()
)
_asked_oddly = st.tuples(
    st.just(f"{_ROOT}/request/noop"), _requests, _properties, st.sampled_from([0, 1]), st.booleans()
)
_messages = st.one_of(_taken, _asked_oddly, _anything)


class _Device:
    """A login that connects anew whenever the broker has cut it, with nothing left of what it sent before."""

    def __init__(self, site: SecuredSite, login: str, protocol: int) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = site.settings(login)
        self._protocol = MQTTProtocolVersion(protocol)
        self._client: paho.Client | None = None
        self._up = threading.Event()

    def _connected(self) -> paho.Client:
        if self._client is not None and self._up.is_set():
            return self._client
        self.end()
        assert self._settings.password is not None
        made = paho.Client(CallbackAPIVersion.VERSION2, protocol=self._protocol, reconnect_on_failure=False)
        made.username_pw_set(self._settings.username, self._settings.password.get_secret_value())
        made.tls_set_context(ssl.create_default_context(cafile=str(self._settings.tls_ca)))
        made.on_connect = lambda *_: self._up.set()
        made.on_disconnect = lambda *_: self._up.clear()
        made.connect("127.0.0.1", self._settings.port)
        made.loop_start()
        assert self._up.wait(WAIT_S)
        self.counts["connected"] += 1
        self._client = made
        return made

    def send(self, topic: str, payload: bytes, given: dict[str, Any], qos: int, *, retain: bool) -> None:
        """Sends one message, and waits for the broker's word or for the end of the connection."""
        client = self._connected()
        properties = _made(given) if self._protocol == paho.MQTTv5 else None
        try:
            sent = client.publish(topic, payload, qos, retain, properties)
        except (ValueError, MQTTException):
            self.counts["not MQTT"] += 1  # paho packs no such message
            return
        self.counts["sent"] += 1
        with suppress(RuntimeError):  # the broker has cut the connection
            while qos and self._up.is_set() and not sent.is_published():
                threading.Event().wait(0.001)

    def end(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        self._up.clear()


def _made(given: dict[str, Any]) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in given.items():
        setattr(properties, name, value)
    return properties


@pytest.mark.long
@pytest.mark.parametrize("protocol", [paho.MQTTv5, paho.MQTTv311], ids=["v5", "3.1.1"])
def test_whatever_a_device_sends_no_node_is_lost(
    running: SecuredSite, request: pytest.FixtureRequest, protocol: int
) -> None:
    count = 10_000 if request.config.getoption("--long") else 500
    with Site(running.settings("operator")) as site, Client(settings=running.settings("alice")) as client:
        assert site.wait(lambda s: s.nodes.ready == {"a", "b"}, WAIT_S)
        before = {node: site.nodes.boot(node) for node in ("a", "b")}
        device = _Device(running, "cam", protocol)

        @example_settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # what a living site was sent cannot be sent to the same site again
            suppress_health_check=list(HealthCheck),
        )
        @given(_messages)
        def send(message: tuple[str, bytes, dict[str, Any], int, bool]) -> None:
            topic, payload, given, qos, retain = message
            device.send(topic, payload, given, qos, retain=retain)
            if device.counts["sent"] % _BATCH == 0:
                _assert_it_serves(site, client)

        try:
            send()
            _assert_it_serves(site, client)
        finally:
            device.end()
        assert {node: site.nodes.boot(node) for node in ("a", "b")} == before
    for node in ("a", "b", "planner"):
        assert "handler_failed" not in running.told(node)
    assert device.counts["sent"] > count / 2, device.counts


def _assert_it_serves(site: Site, client: Client) -> None:
    assert client.ask("noop", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
    assert not [event for event in site.events if event.event == "node_lost"]
    assert site.nodes.ready == {"a", "b"}
