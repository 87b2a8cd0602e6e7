"""What is asked and told where nobody dies: one cluster for all of these tests."""

import json
import subprocess
import sys
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S
from tests.system.conftest import three_nodes
from tests.system.plain import PlainCaller
from tests.system.rest import is_at_rest, settled

#: The Python door as a user's own program has it: it sets nothing up but the Client.
_PROGRAM = """
import sys
from s2m3 import Client
with Client(port=int(sys.argv[1])) as client:
    print(client.ask("noop", left="a", right="b").value)
"""


@pytest.fixture(scope="module")
def noop_cluster(kind: BrokerKind) -> Iterator[Cluster]:
    with three_nodes(kind) as cluster:
        yield cluster


@pytest.mark.short_on("mosquitto")
def test_a_program_prints_what_it_prints_and_nothing_of_ours(noop_cluster: Cluster) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(noop_cluster.settings.port)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert (ran.stdout.count("\n"), ran.stderr) == (1, ""), ran.stdout


@pytest.mark.short_on("embedded")
def test_more_plain_requests_at_once_than_a_front_works_on_are_all_answered(noop_cluster: Cluster) -> None:
    with PlainCaller(noop_cluster.broker.port_v3, paho.MQTTv311, ("s2m3/v1/response/noop",)) as caller:
        for i in range(300):
            document = {"transaction": i, "inputs": {"left": i, "right": i}}
            caller.client.publish("s2m3/v1/request/noop", json.dumps(document), qos=1)
        answers = [caller.answer() for _ in range(300)]
    assert {answer["transaction"]: answer.get("answer") for answer in answers} == {i: [i, i] for i in range(300)}


@pytest.mark.short_on("mosquitto")
def test_nodes_measure_again_when_told(noop_cluster: Cluster, noop_site: Site) -> None:
    before = dict(noop_site.profiles)
    done = s2m3("replan", "--measure", "--json", port=noop_cluster.settings.port, check=True)
    assert json.loads(done.stdout)["revision"] >= 1
    assert noop_site.wait(lambda s: all(s.profiles[node] is not before[node] for node in before), WAIT_S)


@pytest.mark.short_on("embedded")
def test_a_task_that_does_not_fit_says_so_with_numbers_and_the_others_go_on(
    noop_client: Client, noop_site: Site
) -> None:
    add_task(noop_site, "words", m.TaskSpec(model="transcription"))
    assert noop_site.wait(lambda s: "words" in s.routes and s.routes["words"].error is not None, WAIT_S)
    error = noop_site.routes["words"].error
    assert error is not None
    assert error.code == "no_capacity"
    assert "whisper-tiny-en-" in error.detail
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
    noop_site.publish(topics.TASK, b"", task="words")
    assert noop_site.wait(lambda s: "words" not in s.routes, WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_a_plan_of_an_old_epoch_is_refused(noop_cluster: Cluster, noop_client: Client, noop_site: Site) -> None:
    assert noop_site.wait(lambda s: all(n in s.reported and s.reported[n].epoch for n in ("a", "b", "c")), WAIT_S)
    held = {node for node, modules in settled(noop_site).items() if modules}
    with PlainCaller(noop_cluster.broker.port, paho.MQTTv5, ("s2m3/v1/node/+/reported",)) as listener:
        for node in held:
            noop_site.publish(topics.PLAN, m.Plan(epoch=1, revision=10**6).encode(), node=node)
        for node in held:
            refused = noop_site.wait(lambda _, n=node: "old_plan_refused" in noop_cluster.log(n), WAIT_S)  # type: ignore[misc]
            assert refused, noop_cluster.log(node)
        assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
        # The planner may move a module meanwhile. The late plan names none at all: nobody who follows it keeps any.
        assert noop_site.wait(is_at_rest, WAIT_S), noop_cluster.log("planner")
        reports = [listener.answers.get() for _ in range(listener.answers.qsize())]
    emptied = {report.topic.split("/")[3] for report in reports if not json.loads(report.payload).get("modules")}
    assert not emptied & held


@pytest.mark.short_on("embedded")
def test_what_an_old_planner_still_had_under_way_is_replaced_for_whoever_comes_next(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    assert noop_site.wait(is_at_rest, WAIT_S), noop_cluster.log("planner")
    route, plan = noop_site.routes["noop"], noop_site.plans["a"]
    late = {"epoch": route.epoch - 1, "revision": 10**6}
    for task in ("gone", "noop"):
        noop_site.publish(topics.ROUTE, route.model_copy(update=late).encode(), task=task)
    noop_site.publish(topics.PLAN, m.Plan.model_validate(late).encode(), node="a")

    def replaced(site: Site) -> bool:
        documents = (site.routes["noop"], site.plans["a"])
        return all(d.epoch == route.epoch and d.revision > max(route.revision, plan.revision) for d in documents)

    assert noop_site.wait(replaced, WAIT_S), noop_cluster.log("planner")
    assert noop_site.wait(lambda s: "gone" not in s.routes, WAIT_S)
    # A plan may move modules meanwhile; what the late plan said, none at all, is followed by nobody.
    assert noop_site.wait(is_at_rest, WAIT_S), noop_cluster.log("planner")
    assert noop_client.ask("noop", left=1, right=2).attempts == 1


@pytest.mark.short_on("mosquitto")
def test_a_node_that_is_not_there_cannot_be_drained(noop_cluster: Cluster) -> None:
    done = s2m3("drain", "nobody", port=noop_cluster.settings.port)
    assert done.returncode == 2
    assert "'nobody'" in done.stderr
    assert "Traceback" not in done.stderr
