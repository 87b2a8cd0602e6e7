"""What devices send, on the plain door and through bindings, over both brokers."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from PIL import Image

from s2m3.cluster import Cluster
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.media.files import MULTIPART, encoded, file_of, pcm, quiet, speech, wav
from tests.system.plain import PlainCaller
from tests.zoo.samples import sample

pytestmark = pytest.mark.short_on("mosquitto")

ROOT = "s2m3/v1"
TYPE = "audio/L16; rate=16000; channels=1"
SAID = "Please turn on the kitchen light."
CAT = "Egyptian Mau"


@dataclass(frozen=True)
class Sent:
    """What a device sends, the answer, and the content type if it says one."""

    task: str
    input: str
    make: Callable[[], bytes]
    answer: str
    content_type: str | None = None


def _unfinished() -> bytes:
    data = wav(speech())
    at = data.index(b"data") + 4
    return data[:at] + bytes(4) + data[at + 4 :]


def _piped() -> bytes:
    data = bytearray(sample("kitchen-light.flac"))
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    return bytes(data)


def _padded() -> bytes:
    samples = speech()
    return wav(np.concatenate([samples, np.zeros(int(30.05 * 16_000) - len(samples), np.float32)]))


def _phone() -> bytes:
    with Image.open(io.BytesIO(sample("chelsea.jpg"))) as image:
        return file_of(image.convert("RGB").resize((8192, 6144)), "JPEG", quality=30)


CASES = {
    "12-no-end": Sent("classification", "image", lambda: sample("chelsea.jpg")[:-2], CAT),
    "12-multipart": Sent(
        "classification", "image", lambda: b"\r\n" + MULTIPART + sample("chelsea.jpg") + b"\r\n--frame", CAT
    ),
    "13-m4a": Sent("transcription", "audio", lambda: encoded(speech(), "ipod", "aac"), SAID),
    "13-webm": Sent("transcription", "audio", lambda: encoded(speech(), "webm", "libopus", 48_000), SAID),
    "13-pcm": Sent("transcription", "audio", lambda: pcm(speech()), SAID, TYPE),
    "14-flac": Sent("transcription", "audio", _piped, SAID),
    "15-wav": Sent("transcription", "audio", _unfinished, SAID),
    "16-a-little-more": Sent("transcription", "audio", _padded, SAID),
    "17-phone": Sent("classification", "image", _phone, CAT),
    "18-silence": Sent("transcription", "audio", lambda: wav(quiet("silence")), ""),
}


def _typed(content_type: str | None) -> Properties | None:
    if content_type is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content_type
    return properties


@pytest.mark.parametrize("name", CASES)
def test_raw_bytes_on_the_plain_door_are_answered(zoo_cluster: Cluster, name: str) -> None:
    sent = CASES[name]
    with PlainCaller(zoo_cluster.broker.port, paho.MQTTv5, (f"{ROOT}/response/{sent.task}",)) as caller:
        caller.send(f"{ROOT}/request/{sent.task}/{sent.input}", sent.make(), _typed(sent.content_type))
        answer = caller.answer()
    assert answer["status"] == "ok", answer
    assert answer["answer"] == sent.answer


def test_13_raw_pcm_of_a_3_1_1_device_says_its_rate_in_the_topic(zoo_cluster: Cluster) -> None:
    with PlainCaller(zoo_cluster.broker.port_v3, paho.MQTTv311, (f"{ROOT}/response/transcription",)) as caller:
        caller.send(f"{ROOT}/request/transcription/audio;rate=16000", pcm(speech()))
        assert caller.answer()["answer"] == SAID


def test_18_silence_is_no_intent(zoo_cluster: Cluster) -> None:
    audio = {"base64": base64.b64encode(wav(quiet("silence"))).decode()}
    document = {"inputs": {"audio": audio, "text": ["turn on the light", "stop"]}}
    with PlainCaller(zoo_cluster.broker.port_v3, paho.MQTTv311, (f"{ROOT}/response/spoken-intent",)) as caller:
        caller.send(f"{ROOT}/request/spoken-intent", json.dumps(document).encode())
        answer = caller.answer()
    assert answer["outputs"] == {"label": "", "score": 0.0, "ranking": [], "said": ""}


@pytest.fixture(scope="module")
def bound(zoo_cluster: Cluster) -> Iterator[Cluster]:
    """A binding for the pictures and one for the sounds of a house."""
    wanted = {
        "pictures": Binding(source="house/pictures/+", task="classification", input="image", publish="house/said/{1}"),
        "sounds": Binding(
            source="house/sounds/+", task="transcription", input="audio", publish="house/said/{1}", content_type=TYPE
        ),
    }
    with Site(zoo_cluster.settings) as site:
        for name, binding in wanted.items():
            site.publish(topics.BIND, binding.encode(), binding=name)
        active = site.wait(
            lambda s: all(name in s.reports and s.reports[name].state == "active" for name in wanted), WAIT_S
        )
        assert active, zoo_cluster.log("bridge")
        yield zoo_cluster
        for name in wanted:
            site.publish(topics.BIND, b"", binding=name)
        assert site.wait(lambda s: not s.reports, WAIT_S)


@pytest.mark.parametrize("name", CASES)
def test_through_a_binding_they_are_answered(bound: Cluster, name: str) -> None:
    sent = CASES[name]
    kind = "pictures" if sent.task == "classification" else "sounds"
    with PlainCaller(bound.broker.port_v3, paho.MQTTv311, (f"house/said/{name}",)) as caller:
        caller.send(f"house/{kind}/{name}", sent.make())
        answer = caller.answer()
    assert answer["status"] == "ok", answer
    assert answer["answer"] == sent.answer
