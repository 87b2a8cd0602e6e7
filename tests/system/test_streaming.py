"""Texts that come while they are written: to a Client, to `ask --stream`, to callers that speak 3.1.1."""

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from queue import Queue
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.broker.mqtt.documents import listen
from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, RequestTimeoutError
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller, reply_to

pytestmark = pytest.mark.short_on("mosquitto")

ROOT = "s2m3/v1"
TEXT = "the quick brown fox jumps over the lazy dog"


def add_words(cluster: Cluster) -> None:
    """Adds the task `words`, which writes a text back word by word, 20 words a second."""
    with Site(cluster.settings) as site:
        add_task(site, "words", m.TaskSpec(model="noop-text", deadline_s=30))
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=10))
        assert site.wait(lambda s: s.ready("words") and s.ready("noop"), WAIT_S), cluster.log("planner")


@pytest.fixture(scope="module")
def writing(kind: BrokerKind) -> Iterator[Cluster]:
    with Cluster({"a": 150.0, "b": 150.0}, kind=kind, threads=1) as cluster:
        add_words(cluster)
        yield cluster


@pytest.fixture
def client(writing: Cluster) -> Iterator[Client]:
    with Client(settings=writing.settings) as made:
        yield made


def _together(parts: Any) -> str:
    text = ""
    for part in parts:
        text = part.after(text)
    return text


def test_a_client_reads_words_as_they_are_written_and_then_the_whole_answer(client: Client) -> None:
    text = " ".join([TEXT] * 6)  # written for 3 s: not yet whole when the first word is read
    with client.stream("words", text=text, deadline_s=WAIT_S) as stream:
        first = next(stream)
        assert not stream.done()
        rest = list(stream)
        answer = stream.result(WAIT_S)
    assert _together([first, *rest]) == answer.value == text
    assert len(rest) > 2


def test_a_stream_is_read_and_awaited_in_asyncio(client: Client) -> None:
    async def read() -> tuple[str, Any]:
        stream = client.stream("words", text=TEXT)
        text = ""
        async for part in stream:
            text = part.after(text)
        return text, (await stream).value

    assert asyncio.run(read()) == (TEXT, TEXT)


def test_options_end_a_text_by_number_and_by_a_stop_text(client: Client) -> None:
    assert client.ask("words", text=TEXT, options={"max_tokens": 3}).value == "the quick brown"
    assert client.ask("words", text=TEXT, options={"stop": "fox"}).value == "the quick brown"
    assert _together(client.stream("words", text=TEXT, options={"stop": ["nowhere", "over"]})).endswith("jumps")


def test_the_same_seed_writes_the_same_and_another_something_else(client: Client) -> None:
    def drawn(seed: int) -> str:
        return str(client.ask("words", text=TEXT, options={"temperature": 1.0, "seed": seed}).value)

    assert drawn(1) == drawn(1)
    assert len({drawn(1), drawn(2), TEXT}) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": ""}, "stop"),
        ({"top_p": 1.5}, "top_p"),
        ({"beams": 4}, "beams"),
        ({"max_tokens": 30_000}, "at most"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_bad_input(client: Client, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        client.ask("words", text=TEXT, options=options)


def test_a_task_that_writes_no_text_takes_no_options(client: Client) -> None:
    with pytest.raises(BadInputError, match="writes no text"):
        client.ask("noop", left=1, right=2, options={"max_tokens": 3})


def test_a_stream_that_fails_raises_at_its_end(client: Client) -> None:
    client.ask("words", text="the", deadline_s=WAIT_S)  # it knows the route
    stream = client.stream("words", text=TEXT * 20, deadline_s=0.5)
    with pytest.raises(RequestTimeoutError):
        list(stream)


def test_leaving_a_stream_early_frees_the_device_for_others(client: Client) -> None:
    """Each of these texts would be written for half a minute; eight fit at once, so the ninth would have to wait."""
    for _ in range(16):
        with client.stream("words", text="word " * 600) as stream:
            next(stream)
    assert client.ask("words", text=TEXT, deadline_s=WAIT_S).value == TEXT


def test_a_stream_goes_on_when_its_node_is_killed(noop_cluster: Cluster) -> None:
    """Another node begins again: the caller sees each word once."""
    add_words(noop_cluster)
    text = " ".join(f"{TEXT} {n}" for n in range(10))
    busy: Queue[str] = Queue()
    with Site(noop_cluster.settings) as site, Client(settings=noop_cluster.settings) as client:
        listen(site.link, topics.NODE_LOAD, lambda node, load: busy.put(node) if load and load.queues else None)
        with client.stream("words", text=text, deadline_s=WAIT_S) as stream:
            first = next(stream)
            noop_cluster.kill(busy.get(timeout=WAIT_S))
            parts = [first, *stream]
            answer = stream.result(WAIT_S)
    assert answer.value == text
    assert "".join(map(str, parts)) == text
    assert answer.attempts > 1


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "v5"])
def test_a_plain_caller_gets_numbered_pieces_and_one_final_answer(writing: Cluster, protocol: int) -> None:
    port = writing.broker.port if protocol == paho.MQTTv5 else writing.broker.port_v3
    asked = {"transaction": "w-1", "inputs": {"text": TEXT}, "options": {"max_tokens": 5}, "stream": True}
    with PlainCaller(port, protocol, (f"{ROOT}/response/words",)) as caller:
        caller.send(f"{ROOT}/request/words", json.dumps(asked).encode())
        said = _until_final(caller)
    *pieces, answer = said
    assert [message["seq"] for message in said] == list(range(len(said)))
    assert [message["transaction"] for message in said] == ["w-1"] * len(said)
    assert len(pieces) > 1
    text = ""
    for piece in pieces:
        text = text[: piece["at"]] + piece["text"]
    assert (answer["status"], answer["answer"], text) == (
        "ok",
        "the quick brown fox jumps",
        "the quick brown fox jumps",
    )


def _until_final(caller: PlainCaller) -> list[dict[str, Any]]:
    said = [caller.answer()]
    while not said[-1]["final"]:
        said.append(caller.answer())
    return said


def test_without_stream_there_is_one_answer_as_ever(writing: Cluster) -> None:
    with PlainCaller(writing.broker.port_v3, paho.MQTTv311, (f"{ROOT}/response/words",)) as caller:
        for name in ("a", "b"):
            caller.send(f"{ROOT}/request/words", json.dumps({"transaction": name, "inputs": {"text": TEXT}}).encode())
        answers = [caller.answer(), caller.answer()]
    assert sorted(answer["transaction"] for answer in answers) == ["a", "b"]
    assert all("final" not in answer and answer["status"] == "ok" for answer in answers)


def test_an_error_of_a_stream_is_final_too(writing: Cluster) -> None:
    asked = {"inputs": {"text": TEXT}, "options": {"max_tokens": 30_000}, "stream": True}
    with PlainCaller(writing.broker.port, paho.MQTTv5, ("home/words",)) as caller:
        caller.send(f"{ROOT}/request/words", json.dumps(asked).encode(), reply_to("home/words", b"7"))
        (answer,) = _until_final(caller)
    assert (answer["error"]["code"], answer["seq"]) == ("bad_input", 0)


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="mosquitto-clients is not installed")
def test_mosquitto_pub_and_sub_stream_over_3_1_1(writing: Cluster) -> None:
    where = ["-p", str(writing.broker.port_v3), "-V", "mqttv311", "-q", "1"]
    heard = subprocess.Popen(
        ["stdbuf", "-oL", "mosquitto_sub", *where, "-t", f"{ROOT}/response/words", "-d"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert heard.stdout is not None
        next(line for line in heard.stdout if "SUBACK" in line)
        asked = json.dumps({"inputs": {"text": TEXT}, "stream": True})
        subprocess.run(
            ["mosquitto_pub", *where, "-t", f"{ROOT}/request/words", "-m", asked], check=True, timeout=WAIT_S
        )
        said = (json.loads(line) for line in heard.stdout if line.startswith("{"))
        messages = [*itertools.takewhile(lambda message: not message["final"], said)]
    finally:
        heard.kill()
    assert len(messages) > 2
    assert TEXT.startswith("".join(message["text"] for message in messages))


def test_the_ask_command_prints_words_as_they_come_and_each_once(writing: Cluster) -> None:
    asked = [sys.executable, "-m", "s2m3", "ask", "words", "--text", TEXT, "--port", str(writing.settings.port)]
    done = subprocess.run([*asked, "--stream"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[0] == TEXT
    assert done.stdout.count("quick") == 1
    as_json = subprocess.run(
        [*asked, "--stream", "--json", "--max-tokens", "4"], capture_output=True, text=True, check=True, timeout=60
    )
    *parts, answer = map(json.loads, as_json.stdout.splitlines())
    assert answer["answer"] == "the quick brown fox"
    assert "".join(part["text"] for part in parts) == "the quick brown fox"
    wrong = subprocess.run([*asked, "--temperature", "9"], capture_output=True, text=True, check=False, timeout=60)
    assert (wrong.returncode, "temperature" in wrong.stderr) == (2, True)
