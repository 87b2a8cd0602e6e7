"""Whatever is sent, the caller hears a code and the agents stay alive."""

import io
import struct
import zlib
from typing import Any

import paho.mqtt.client as paho
import pytest
from PIL import Image

from s2m3.client import Client, Reply
from s2m3.cluster import Cluster
from s2m3.demo import DEMO_NODES
from s2m3.schemas import errors, topics
from s2m3.schemas import messages as m
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.wire.codec import encode_work
from s2m3.schemas.wire.work import Hop, Work
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.frozen import agent_of
from tests.media.files import file_of, with_scans
from tests.others import others_answered
from tests.system.plain import PlainCaller, RawClient, reply_to
from tests.zoo.samples import sample

pytestmark = pytest.mark.short_on("mosquitto")

ROOT = "s2m3/v1"


@pytest.fixture(autouse=True)
def _alive_after(zoo_cluster: Cluster, zoo_client: Client) -> Any:
    """After each of these tests every agent process runs and answers."""
    before = {name: process.pid for name, process in zoo_cluster.processes.items()}
    yield
    assert all(zoo_cluster.processes[name].poll() is None for name in before)
    assert zoo_client.ask("classification", image=sample("chelsea.jpg")).value == "Egyptian Mau"


def _bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 50,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    header = struct.pack("!IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (sample("chelsea.jpg")[:4000], "picture"),
        (_bomb(), "50000"),
        (b"GIF89a" + bytes(40), "picture"),
        (b"", "picture"),
    ],
    ids=["truncated-jpeg", "decompression-bomb", "garbage", "empty"],
)
def test_a_picture_that_cannot_be_read_is_bad_input(zoo_client: Client, picture: bytes, said: str) -> None:
    with pytest.raises(errors.BadInputError) as caught:
        zoo_client.ask("classification", image=picture)
    assert said in caught.value.detail
    assert caught.value.step == "vision"


def test_a_text_of_a_megabyte_is_bad_input(zoo_client: Client) -> None:
    with pytest.raises(errors.BadInputError):
        zoo_client.ask("retrieval", image=sample("chelsea.jpg"), text=["x" * 1_000_000])


def test_sound_that_is_no_sound_is_bad_input(zoo_client: Client) -> None:
    with pytest.raises(errors.BadInputError):
        zoo_client.ask("transcription", audio=b"RIFF" + bytes(100))


def test_a_task_nobody_added_is_unknown(zoo_client: Client) -> None:
    with pytest.raises(errors.UnknownTaskError):
        zoo_client.ask("no-such-task", text="hello")


@pytest.mark.parametrize("given", [{}, {"image": b"x", "sound": b"y"}, {"image": "not bytes"}, {"image": [b"x", b"y"]}])
def test_inputs_that_are_not_what_the_task_takes_are_bad_input(zoo_client: Client, given: dict[str, Any]) -> None:
    with pytest.raises(errors.BadInputError):
        zoo_client.ask("classification", **given)


def test_a_path_as_a_text_is_refused_with_what_python_gives(zoo_client: Client) -> None:
    with pytest.raises(
        errors.BadInputError, match=r"takes a file, as bytes or as a pathlib\.Path, not the text 'cat.jpg'"
    ):
        zoo_client.ask("classification", image="cat.jpg")


def test_a_deadline_already_past_is_a_timeout(zoo_client: Client) -> None:
    with pytest.raises(errors.RequestTimeoutError):
        zoo_client.ask("classification", image=sample("chelsea.jpg"), deadline_s=0)


def test_a_payload_over_the_limit_is_too_large_and_is_not_sent(zoo_client: Client) -> None:
    with pytest.raises(errors.TooLargeError):
        zoo_client.ask("classification", image=bytes(33_000_000))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"not json",
        b"[]",
        b'{"inputs": 7}',
        b'{"inputs": {"image": "x"}}',
        b'{"nonsense": 1}',
        b"[" * 100_000,
    ],
    ids=["msgpack", "text", "list", "number", "not-base64", "unknown-key", "deep"],
)
def test_a_plain_request_that_makes_no_sense_is_answered_with_its_code(zoo_cluster: Cluster, payload: bytes) -> None:
    with PlainCaller(zoo_cluster.broker.port_v3, paho.MQTTv311, (f"{ROOT}/response/classification",)) as caller:
        caller.send(f"{ROOT}/request/classification", payload)
        answer = caller.answer()
    assert answer["status"] == "error"
    assert answer["error"]["code"] == "bad_input"


def test_a_plain_request_for_an_input_the_task_lacks_is_bad_input(zoo_cluster: Cluster) -> None:
    with PlainCaller(zoo_cluster.broker.port_v3, paho.MQTTv311, (f"{ROOT}/response/classification",)) as caller:
        caller.send(f"{ROOT}/request/classification/audio", b"x")
        assert caller.answer()["error"]["code"] == "bad_input"


def _module_topics(cluster: Cluster) -> list[str]:
    """The topics of all ready modules, once nothing is loading any more."""
    with Site(cluster.settings) as site:
        assert site.wait(lambda s: all(report.state == "ready" for _, _, report in _held(s)), WAIT_S)
        return [topics.MODULE_IN.at(ROOT, module=module, node=node) for node, module, _ in _held(site)]


def _held(site: Site) -> list[tuple[str, str, m.ModuleReport]]:
    return [(n, name, report) for n, reported in site.reported.items() for name, report in reported.modules.items()]


def test_garbage_on_every_topic_that_an_agent_listens_to_is_answered_or_logged(zoo_cluster: Cluster) -> None:
    module_topics = _module_topics(zoo_cluster)
    with RawClient(zoo_cluster.broker.port) as raw:
        for topic in module_topics:
            raw.work(topic, b"\xc1\xff garbage", new_request_id(), [("step", "vision")])
            assert raw.error().code == "bad_input"
            raw.send(topic, b"no properties at all")
        with Site(zoo_cluster.settings) as site:
            plans = list(site.plans)
        for node in plans:
            raw.send(f"{ROOT}/client/node-{node}/in", b"\xc1")
            raw.send(f"{ROOT}/plan/{node}", b"\xc1")
            raw.send(f"{ROOT}/node/{node}/load", b"\xc1")
            raw.send(f"{ROOT}/node/{node}/state", b"\xc1")
        raw.send(f"{ROOT}/route/classification", b"\xc1")
        raw.send(f"{ROOT}/task/classification", b"\xc1")
        raw.send(f"{ROOT}/control/drain", b"\xc1")


@pytest.mark.parametrize(
    ("shape", "length", "said"),
    [([1, 1280], 100, "5120 bytes, not 100"), ([3, 7], 84, "")],
    ids=["its-length-does-not-fit-its-shape", "another-shape-than-the-module-takes"],
)
def test_a_tensor_that_is_not_what_it_should_be_is_bad_input(
    zoo_cluster: Cluster, shape: list[int], length: int, said: str
) -> None:
    topic = next(topic for topic in _module_topics(zoo_cluster) if "/imagenet-linear/" in topic)
    node = topic.split("/")[-2]
    route = {"classes": Hop("imagenet-linear", node, {"features": "input.features"}, ("label",))}
    tensor = {"dtype": "float32", "shape": shape, "bytes": bytes(length)}
    request = new_request_id()
    work = Work(request, "classification", "classes", 1, 1, RawClient.INBOX, {"features": tensor}, route, WAIT_S * 1000)
    payload, user = encode_work(work)
    with RawClient(zoo_cluster.broker.port) as raw:
        raw.work(topic, payload, request, list(user))
        error = raw.error()
    assert error.code == "bad_input"
    assert said in error.detail


def test_work_with_no_time_left_is_a_timeout_and_is_not_run(zoo_cluster: Cluster) -> None:
    topic = next(topic for topic in _module_topics(zoo_cluster) if "/minilm/" in topic)
    node = topic.split("/")[-2]
    route = {"text": Hop("minilm", node, {"text": "input.text"}, ("embedding",))}
    request = new_request_id()
    work = Work(request, "retrieval", "text", 1, 1, RawClient.INBOX, {"text": ["a"]}, route, -5.0)
    payload, user = encode_work(work)
    with RawClient(zoo_cluster.broker.port) as raw:
        raw.work(topic, payload, request, list(user))
        assert raw.error().code == "timeout"


def test_a_request_sent_to_a_response_topic_of_ours_cannot_make_the_front_write_there(zoo_cluster: Cluster) -> None:
    evil = f"{ROOT}/plan/pi"
    topics_heard = (f"{ROOT}/response/classification",)
    with PlainCaller(zoo_cluster.broker.port, paho.MQTTv5, topics_heard) as caller:
        caller.send(f"{ROOT}/request/classification/image", sample("chelsea.jpg"), reply_to(evil, b"1"))
        assert caller.answer()["error"]["code"] == "bad_input"


def _many_scans() -> bytes:
    """A JPEG of a few hundred kB with 20,000 scans."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG", progressive=True)
    return with_scans(buffer.getvalue(), 20_000)


def _large_once_decoded() -> bytes:
    """A PNG of less than 200 kB that takes 196 MB once it is decoded."""
    return file_of(Image.new("RGB", (7_000, 7_000)), "PNG")


def _refusal(reply: Reply) -> str:
    """Why a request is bad input; empty if it has an answer."""
    try:
        reply.result()
    except errors.BadInputError as error:
        return error.detail
    return ""


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        ("retrieval", {"text": [f"{n} " + "word " * 1_990 for n in range(1_000)]}, "characters together"),
        ("classification", {"image": _many_scans}, "scans"),
        ("classification", {"image": _large_once_decoded}, None),
    ],
    ids=["many-long-texts", "many-scans", "large-once-decoded"],
)
def test_35_36_work_out_of_proportion_is_refused_and_others_are_answered_meanwhile(
    zoo_client: Client, zoo_cluster: Cluster, task: str, given: dict[str, Any], said: str | None
) -> None:
    """The large picture is decoded where a node has the memory."""
    inputs = {"image": sample("coffee.jpg")} | {name: v() if callable(v) else v for name, v in given.items()}
    processes = [agent_of(zoo_cluster.processes[node]) for node in DEMO_NODES]
    with others_answered(lambda: zoo_client.ask("classification", image=sample("chelsea.jpg"))):
        attacks = [zoo_client.submit(task, **inputs) for _ in range(3)]
        refusals = [_refusal(attack) for attack in attacks]
    for refusal in refusals:
        assert (said or "too large for this node") in refusal if refusal else said is None
    assert [agent_of(zoo_cluster.processes[node]) for node in DEMO_NODES] == processes, "no agent was started again"
