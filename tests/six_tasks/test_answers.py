"""The six tasks on real weights over three agent processes: the same answers as the models run whole in one process."""

import base64
import json
import shutil
import subprocess
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.client import Answer, Client
from s2m3.cluster import Cluster
from s2m3.demo import DEMO_NODES, TASKS
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.snapshot import Site
from tests import command
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller, properties_of, reply_to
from tests.zoo import whole
from tests.zoo.samples import FOLDER, cases, sample

pytestmark = pytest.mark.short_on("mosquitto")


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, float):
        return bool(abs(ours - theirs) <= 1e-5)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(_same(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in theirs)
    return bool(ours == theirs)


@pytest.mark.parametrize(
    ("task", "inputs", "expect"), cases(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_bus_answers_as_the_whole_model_does(
    zoo_client: Client, task: str, inputs: dict[str, Any], expect: dict[str, Any]
) -> None:
    answer = zoo_client.ask(task, **inputs)
    reference = whole.answer(task, inputs)
    assert answer.outputs.keys() == reference.keys()
    for name, value in reference.items():
        assert _same(answer.outputs[name], value), (name, answer.outputs[name], value)
    assert {name: answer.outputs[name] for name in expect} == expect


def test_every_module_is_held_and_no_node_has_room_for_all(zoo_cluster: Cluster) -> None:
    with Site(zoo_cluster.settings) as site:
        held = [module for reported in site.reported.values() for module in reported.modules]
    needed = {module for task in TASKS for module in shipped_catalogue().models[task].module_ids}
    assert set(held) == needed
    assert all(len(set(reported.modules)) < len(needed) for reported in site.reported.values())
    specs = [shipped_catalogue().modules[module] for module in needed]
    total = sum(spec.weights_mb("float32") + spec.cache_mb for spec in specs)
    assert len(set(DEMO_NODES.values())) == 3
    assert all(site.profiles[node].memory_mb - site.profiles[node].runtime_mb < total for node in DEMO_NODES)


def test_a_step_is_not_held_up_by_another_branch(zoo_client: Client) -> None:
    """Vision and hearing have nothing to wait for: the answer takes less than all steps one after the other."""
    photos, spoken = [sample(name) for name in ("chelsea.jpg", "coffee.jpg", "rocket.jpg")], sample("cat-looking.flac")
    answers = [zoo_client.ask("spoken-retrieval", image=photos, audio=spoken) for _ in range(3)]
    apart = [answer for answer in answers if answer.route["vision"] != answer.route["hearing"]]
    assert all(set(answer.steps) == set(answer.route) for answer in answers)
    assert all(answer.steps["vision"].queued_ms < answer.steps["hearing"].run_ms for answer in apart)


def test_many_requests_at_once_are_all_answered_and_batched(zoo_client: Client) -> None:
    replies = [
        zoo_client.submit("retrieval", image=sample("coffee.jpg"), text=[f"a cup {i}", "a cat"]) for i in range(40)
    ]
    answers: list[Answer] = [reply.result(WAIT_S) for reply in replies]
    assert all(answer.value.startswith("a cup") for answer in answers)
    assert max(timing.batch for answer in answers for timing in answer.steps.values()) > 1


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "v5"])
def test_a_picture_published_as_it_is_gets_an_answer(zoo_cluster: Cluster, protocol: int) -> None:
    port = zoo_cluster.broker.port if protocol == paho.MQTTv5 else zoo_cluster.broker.port_v3
    with PlainCaller(port, protocol, ("s2m3/v1/response/classification",)) as caller:
        caller.send("s2m3/v1/request/classification/image", sample("coffee.jpg"))
        answer = caller.answer()
    assert answer["status"] == "ok"
    assert answer["answer"] == "espresso"


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "v5"])
@pytest.mark.parametrize("task", TASKS)
def test_json_with_a_transaction_is_answered_with_it(zoo_cluster: Cluster, task: str, protocol: int) -> None:
    port = zoo_cluster.broker.port if protocol == paho.MQTTv5 else zoo_cluster.broker.port_v3
    _, inputs, expect = next(case for case in cases() if case[0] == task)
    document = {"transaction": f"{task}-1", "inputs": {name: _as_json(value) for name, value in inputs.items()}}
    with PlainCaller(port, protocol, (f"s2m3/v1/response/{task}",)) as caller:
        caller.send(f"s2m3/v1/request/{task}", json.dumps(document).encode())
        answer = caller.answer()
    assert answer["transaction"] == f"{task}-1"
    assert {name: answer["outputs"][name] for name in expect} == expect


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return [_as_json(item) for item in value] if isinstance(value, list) else value


def test_a_v5_caller_is_answered_on_its_own_topic_with_its_correlation(zoo_cluster: Cluster) -> None:
    with PlainCaller(zoo_cluster.broker.port, paho.MQTTv5, ("home/porch/answer",)) as caller:
        caller.send(
            "s2m3/v1/request/transcription/audio", sample("hello-world.flac"), reply_to("home/porch/answer", b"7")
        )
        message = caller.message()
    assert properties_of(message).CorrelationData == b"7"
    assert json.loads(message.payload)["answer"] == "Hello world."


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
def test_mosquitto_pub_asks_with_a_picture_file(zoo_cluster: Cluster) -> None:
    port = zoo_cluster.broker.port_v3
    asked = ["mosquitto_pub", "-p", str(port), "-t", "s2m3/v1/request/classification/image"]
    with PlainCaller(port, paho.MQTTv311, ("s2m3/v1/response/classification",)) as caller:
        subprocess.run([*asked, "-f", str(FOLDER / "chelsea.jpg")], check=True, timeout=WAIT_S)
        assert caller.answer()["answer"] == "Egyptian Mau"


@pytest.mark.skipif(shutil.which("mosquitto_rr") is None, reason="mosquitto-clients is not installed")
def test_mosquitto_rr_asks_with_json_and_prints_the_answer(zoo_cluster: Cluster) -> None:
    inputs = {"image": _as_json(sample("red-triangle.png")), "text": "what color is the shape?"}
    asked = ["mosquitto_rr", "-p", str(zoo_cluster.broker.port), "-V", "5", "-t", "s2m3/v1/request/vqa"]
    asked += ["-e", "home/answer", "-m", json.dumps({"transaction": 7, "inputs": inputs}), "-W", "100"]
    heard = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=WAIT_S)
    answer = json.loads(heard.stdout)
    assert (answer.get("transaction"), answer.get("answer")) == (7, "red"), answer


def test_the_ask_command_prints_the_answer_first_and_then_where_it_ran(zoo_cluster: Cluster) -> None:
    asked = ["ask", "retrieval", "--image", str(FOLDER / "chelsea.jpg"), "--text", "a cat", "--text", "a rocket"]
    lines = _s2m3(zoo_cluster, *asked).splitlines()
    assert lines[0] == "a cat"
    assert any("vision" in line and " ms" in line for line in lines)


def test_the_ask_command_prints_json_with_answer_latency_route_and_attempts(zoo_cluster: Cluster) -> None:
    asked = ["ask", "vqa", "--image", str(FOLDER / "red-triangle.png"), "--text", "what color is the shape?", "--json"]
    document = json.loads(_s2m3(zoo_cluster, *asked))
    assert document["answer"] == "red"
    assert document["latency_ms"] > 0
    assert document["attempts"] == 1
    assert set(document["route"]) == {"vision", "question", "answer"}


def test_status_tells_who_holds_what(zoo_cluster: Cluster) -> None:
    document = json.loads(_s2m3(zoo_cluster, "status", "--json"))
    assert all(task["ready"] for task in document["tasks"].values())
    assert set(document["nodes"]) == set(DEMO_NODES)
    table = _s2m3(zoo_cluster, "status")
    assert "minilm" in table
    assert "retrieval" in table


def _s2m3(cluster: Cluster, *words: str) -> str:
    return command.s2m3(*words, port=cluster.settings.port, check=True).stdout
