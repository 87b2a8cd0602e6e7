"""A module that hangs or crashes takes its process with it; the supervisor starts it again, and the process learns."""

import json
import signal
from contextlib import suppress

import paho.mqtt.client as paho
import psutil
import pytest

from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import NoCapacityError, S2M3Error
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.wire.codec import encode_work
from s2m3.schemas.wire.work import Hop, Work
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.frozen import agent_of
from tests.guard.conftest import FaultyCluster, ready
from tests.others import others_answered
from tests.system.plain import PlainCaller, RawClient

pytestmark = pytest.mark.short_on("mosquitto")


def failure(site: Site, module: str) -> str | None:
    """Why the module failed on node a, once it has."""
    found = site.reported["a"].modules.get(module) if "a" in site.reported else None
    return found.reason.detail if found is not None and found.reason is not None else None


def died(cluster: FaultyCluster) -> list[str]:
    """The lines of all supervisors about processes that died."""
    return [line for node in cluster.processes for line in cluster.log(node).splitlines() if "event=agent_died" in line]


def wait_ready(cluster: FaultyCluster, *, after_deaths: int = 0) -> None:
    """Waits until every agent runs again, and has loaded what it is to hold: its last process, not the one before."""
    with Site(cluster.settings) as site:
        assert site.wait(lambda _: len(died(cluster)) >= after_deaths, WAIT_S), cluster.log("a")
        assert site.wait(lambda s: is_back(cluster, s), WAIT_S), cluster.log("a")


def is_back(cluster: FaultyCluster, site: Site) -> bool:
    agents = [name for name in cluster.processes if name != "planner"]
    up = all(cluster.log(n).count("event=agent_up") == 1 + cluster.log(n).count("event=agent_died") for n in agents)
    return up and site.ready("faulty") and all(_holds_its_plan(cluster, site, node) for node in agents)


def _holds_its_plan(cluster: FaultyCluster, site: Site, node: str) -> bool:
    boot, reported, plan = site.nodes.boot(node), site.reported.get(node), site.plans.get(node)
    if boot is None or reported is None or plan is None or reported.boot != boot:
        return False
    states = {name: report.state for name, report in reported.modules.items()}
    newest = cluster.log(node).rpartition("event=agent_up")[2]
    return f"boot={boot}" in newest and all(states.get(spec.id) == "ready" for spec in plan.modules)


@pytest.mark.parametrize(
    ("word", "why"), [("hang", "has not ended after"), ("crash", "SIGSEGV")], ids=["hangs", "crashes"]
)
def test_a_node_whose_module_fails_natively_is_back_by_itself(
    lone: FaultyCluster, client: Client, word: str, why: str
) -> None:
    agent = agent_of(lone.processes["a"])
    with pytest.raises(S2M3Error):
        client.ask("faulty", left=word, right=0, deadline_s=2)
    wait_ready(lone, after_deaths=1)
    assert client.ask("faulty", left=1, right=2).value == [1, 2]
    assert agent_of(lone.processes["a"]) != agent
    assert why in lone.log("a")
    assert "at=faulty-left" in lone.log("a")


def test_an_input_that_crashed_is_not_run_on_that_node_again(lone: FaultyCluster) -> None:
    request = new_request_id()
    route = {"left": Hop("faulty-left", "a", {"data": "input.left"}, ("code",))}
    work = Work(request, "faulty", "left", 1, 1, RawClient.INBOX, {"data": "crash"}, route, 60_000.0)
    payload, user = encode_work(work)
    topic = topics.MODULE_IN.at("s2m3/v1", module="faulty-left", node="a")
    with RawClient(lone.broker.port) as raw:
        raw.work(topic, payload, request, list(user))
        wait_ready(lone, after_deaths=1)
        raw.work(topic, payload, request, list(user))
        error = raw.error()
    assert error.code == "module_failed"
    assert "faulty-left did not survive this input: SIGSEGV" in error.detail
    assert len(died(lone)) == 1


def test_29_a_plain_request_that_ends_each_process_is_answered_and_not_brought_for_ever(
    pair: FaultyCluster, client: Client
) -> None:
    """Its gateway dies with its module: the session brings it to the next, under another id."""
    topic, request = "s2m3/v1/response/faulty", "s2m3/v1/request/faulty"
    ready(pair, "noop", 2)

    def ask() -> None:
        with suppress(NoCapacityError):  # told after 10 s without any node: on a slow machine both start for longer
            client.ask("noop", left=1, right=2, deadline_s=WAIT_S)

    with PlainCaller(pair.broker.port, paho.MQTTv5, (topic,)) as caller, others_answered(ask):
        caller.send(request, b'{"transaction": "poison", "inputs": {"left": "crash", "right": 0}, "deadline_s": 20}')
        answer = caller.answer()
        assert (answer["status"], answer["transaction"]) == ("error", "poison"), answer
        wait_ready(pair)
        for transaction in range(10):
            body = {"transaction": transaction, "inputs": {"left": 1, "right": 2}, "deadline_s": 60}
            caller.send(request, json.dumps(body).encode())
        answers = [caller.answer() for _ in range(10)]
    assert {(answer["status"], answer["transaction"]) for answer in answers} == {("ok", n) for n in range(10)}, answers
    lines = died(pair)
    assert 1 <= sum("at=faulty-left " in line for line in lines) <= 4, lines
    assert sum("at=faulty-left " not in line for line in lines) <= 2, lines  # beside another request, then alone


def test_a_module_that_crashes_again_and_again_is_told_as_failed_with_the_reason(
    lone: FaultyCluster, client: Client
) -> None:
    crashes = 0
    with Site(lone.settings) as site:
        while failure(site, "faulty-left") is None and crashes < 12:  # the first four may take longer than the minute
            client.submit("faulty", left="crash", right=crashes, deadline_s=WAIT_S)
            crashes += 1
            assert site.wait(lambda _, n=crashes: lone.log("a").count("agent_died") >= n, WAIT_S), lone.log("a")  # type: ignore[misc]
            assert site.wait(lambda s: failure(s, "faulty-left") is not None or s.ready("faulty"), WAIT_S)
        assert "ended the process 4 times in 60 s: SIGSEGV" in (failure(site, "faulty-left") or "")
        assert site.nodes.state("a") == "ready"


def test_texts_beside_a_poisoned_one_are_written_and_the_writer_is_not_given_up(
    lone: FaultyCluster, client: Client
) -> None:
    """It crashes after some words, beside others: each is written alone after that, until the one is known."""
    ready(lone, "faulty-text", 1)
    texts = [f"text {n} is written for three seconds unless the process of all of them ends" for n in range(3)]
    poison = client.submit("faulty-text", text="soon after this comes a crash", deadline_s=20)
    replies = [client.submit("faulty-text", text=text, deadline_s=WAIT_S) for text in texts]
    assert [reply.result(WAIT_S).value for reply in replies] == texts
    with pytest.raises(S2M3Error):
        poison.result(WAIT_S)
    assert 1 <= len(died(lone)) <= 2
    assert client.ask("faulty-text", text="one more", deadline_s=WAIT_S).value == "one more"


def test_with_a_second_node_others_are_answered_while_a_poisoned_input_goes_round(
    pair: FaultyCluster, client: Client
) -> None:
    poison = client.submit("faulty", left="crash", right=0, deadline_s=6)
    with pytest.raises(S2M3Error):
        poison.result(WAIT_S)
    wait_ready(pair)
    replies = [client.submit("faulty", left=i, right=i, deadline_s=WAIT_S) for i in range(100)]
    assert [reply.result(WAIT_S).value for reply in replies] == [[i, i] for i in range(100)]
    assert len(died(pair)) <= 2
    assert all(process.poll() is None for process in pair.processes.values())


def test_a_module_whose_loading_crashes_is_told_as_failed_and_the_rest_of_the_node_serves(
    lone: FaultyCluster, client: Client
) -> None:
    with Site(lone.settings) as site:
        add_task(site, "unloadable", m.TaskSpec(model="unloadable"))
        assert site.wait(lambda s: failure(s, "unloadable-left") is not None, WAIT_S), lone.log("a")
        assert "loading it ended the process: SIGSEGV" in (failure(site, "unloadable-left") or "")
    wait_ready(lone)
    assert client.ask("faulty", left=1, right=2).value == [1, 2]


def test_the_agent_dies_with_its_supervisor(lone: FaultyCluster) -> None:
    agent = agent_of(lone.processes["a"])
    with Site(lone.settings) as site:
        lone.kill("a")
        assert site.wait(lambda s: s.nodes.state("a") == "lost", WAIT_S)
    assert psutil.wait_procs([agent], timeout=WAIT_S)[1] == []


def test_an_agent_killed_for_want_of_memory_is_back_by_itself(lone: FaultyCluster, client: Client) -> None:
    agent_of(lone.processes["a"]).send_signal(signal.SIGKILL)
    wait_ready(lone, after_deaths=1)
    assert client.ask("faulty", left=1, right=2).value == [1, 2]
    assert "SIGKILL (out of memory?)" in lone.log("a")
