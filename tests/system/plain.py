"""A caller as Mosquitto's own tools are: any protocol version, JSON or raw bytes, no knowledge of ours."""

import json
import queue
import secrets
import socket
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.wire.codec import CONTENT_TYPE, decode_answer
from tests.conftest import WAIT_S


class PlainCaller:
    """Publishes requests and reads answers over a connection of its own."""

    def __init__(self, port: int, protocol: int, topics: tuple[str, ...]) -> None:
        self.answers: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(protocol))
        self.client.on_socket_open = _no_delay
        self.client.on_message = lambda _c, _u, message: self.answers.put(message)
        self._subscribed: queue.Queue[None] = queue.Queue()
        self.client.on_subscribe = lambda *_: self._subscribed.put(None)
        # A connection that the broker ended is made again by paho, and the session of before is gone.
        self._topics = topics
        self.client.on_connect = self._subscribe
        self.client.connect("127.0.0.1", port)

    def _subscribe(self, *_: object) -> None:
        self.client.subscribe([(topic, 1) for topic in self._topics])

    def __enter__(self) -> Self:
        self.client.loop_start()
        self._subscribed.get(timeout=WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, topic: str, payload: bytes, properties: Properties | None = None) -> None:
        self.client.publish(topic, payload, qos=1, properties=properties).wait_for_publish(WAIT_S)

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.message().payload)
        return found

    def message(self) -> paho.MQTTMessage:
        return self.answers.get(timeout=WAIT_S)


def retained(port: int, *filters: str) -> dict[str, bytes]:
    """What a broker gives to somebody who comes now, by topic. A message of one's own comes behind all of it."""
    marker = f"marker/{secrets.token_hex(8)}"
    found: dict[str, bytes] = {}
    with PlainCaller(port, paho.MQTTv311, (*filters, marker)) as caller:
        caller.send(marker, b"the end")
        while (message := caller.message()).topic != marker:
            if message.retain and message.payload:
                found[message.topic] = bytes(message.payload)
    return found


def _no_delay(_c: paho.Client, _u: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def properties_of(message: paho.MQTTMessage) -> Any:
    """Returns a message's v5 properties: paho's attributes come and go, and its types do not know them."""
    assert message.properties is not None
    return message.properties


def reply_to(topic: str, correlation: bytes) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = topic
    properties.CorrelationData = correlation
    return properties


class RawClient(PlainCaller):
    """Sends work as a Client would, byte by byte as the test wants it."""

    INBOX = "s2m3/v1/client/test-raw/in"

    def __init__(self, port: int) -> None:
        super().__init__(port, paho.MQTTv5, (self.INBOX,))

    def work(self, topic: str, payload: bytes, request: bytes, user: list[tuple[str, str]]) -> None:
        properties = reply_to(self.INBOX, request)
        properties.ContentType = CONTENT_TYPE
        properties.UserProperty = user
        self.send(topic, payload, properties)

    def error(self) -> S2M3Error:
        message = self.message()
        properties = properties_of(message)
        user = dict(properties.UserProperty)
        answer = decode_answer(bytes(message.payload), request=properties.CorrelationData, user=user)
        assert answer.error is not None
        return answer.error
