"""A sleeping machine is woken by real magic packets, one per interval, and given up with a reason if it stays away."""

import json
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from s2m3.agents.wake_on_lan import magic_packet
from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.specs import Definition
from s2m3.snapshot import Site
from tests.command import s2m3_here
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller

MAC = "52:54:00:12:34:56"
#: Of the planner: seconds between two magic packets. Three are sent before the node is given up.
INTERVAL_S = 1.0


@contextmanager
def listener() -> Iterator[socket.socket]:
    """The network card of the machine that sleeps."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.bind(("127.0.0.1", 0))
        card.settimeout(WAIT_S)
        yield card


def receive(card: socket.socket, number: int) -> None:
    """Waits for so many packets: whoever orders one does not wait for it to be sent."""
    for _ in range(number):
        assert card.recv(200) == magic_packet(MAC)


def packets(card: socket.socket) -> int:
    """Returns how many packets have come since the last call."""
    found = 0
    card.setblocking(False)  # noqa: FBT003  # the socket's own signature
    try:
        while True:
            assert card.recv(200) == magic_packet(MAC)
            found += 1
    except BlockingIOError:
        return found
    finally:
        card.settimeout(WAIT_S)


@contextmanager
def site_with_a_desktop(kind: BrokerKind, folder: Path) -> Iterator[Cluster]:
    """A Pi without memory for any module, and a desktop that sleeps until the file `awake` is there."""
    cluster = Cluster({"pi": 20.0, "desktop": 150.0}, kind=kind, threads=1)
    asleep = f"while [ ! -e {folder}/awake ]; do sleep 0.05; done"
    cluster.environment = {
        "S2M3_WAKE_INTERVAL_S": str(INTERVAL_S),
        "S2M3_SLEEP_COMMAND": f"sh -c '{asleep}'",
        "S2M3_SLEEP_GRACE_S": "0",
    }
    try:
        with cluster:
            yield cluster
    finally:
        (folder / "awake").touch()


@pytest.mark.short_on("embedded")
def test_a_sleeping_machine_is_woken_for_a_request_or_given_up_with_a_reason(kind: BrokerKind, tmp_path: Path) -> None:
    with site_with_a_desktop(kind, tmp_path) as cluster, listener() as card, Site(cluster.settings) as site:
        port = cluster.settings.port
        assert site.wait(lambda s: s.nodes.ready == {"pi", "desktop"} and s.planner is not None, WAIT_S)
        where = f"127.0.0.1:{card.getsockname()[1]}"
        done = s2m3_here("node", "set", "desktop", "--wake", "52-54-00-12-34-56", "--wake-address", where, port=port)
        assert (done.returncode, done.stderr) == (0, "")
        done = s2m3_here("node", "sleep", "desktop", "--wait", str(WAIT_S), port=port)
        slept = (0, "desktop sleeps; a request that wants it wakes it\n")
        assert (done.returncode, done.stdout) == slept, done.stderr + cluster.log("desktop")
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=WAIT_S))
        wanted = site.wait(lambda s: "noop" in s.routes and s.routes["noop"].asleep == ["desktop"], WAIT_S)
        assert wanted, cluster.log("planner")
        assert packets(card) == 0, "it sleeps as long as nobody asks"
        answers = "s2m3/v1/response/noop"
        with (
            Client(settings=cluster.settings) as client,
            PlainCaller(cluster.broker.port_v3, paho.MQTTv311, (answers,)) as plain,
        ):
            _ask_until_it_is_given_up(site, client, cluster)
            receive(card, 3)
            _shown_as_given_up(port)
            assert packets(card) == 0, "one for each interval, however many requests came"
            waiting = client.submit("noop", left=3, right=4, options={"wait_s": WAIT_S})
            request = {"transaction": 7, "inputs": {"left": 5, "right": 6}, "options": {"wait_s": WAIT_S}}
            plain.send("s2m3/v1/request/noop", json.dumps(request).encode())
            done = s2m3_here("node", "wake", "desktop", "--wait", "0", port=port)
            assert (done.returncode, done.stderr[:45]) == (1, "s2m3: timeout: desktop did not come in 0 s; b")
            assert card.recv(200) == magic_packet(MAC)
            assert not waiting.done()
            (tmp_path / "awake").touch()
            assert waiting.result(WAIT_S).value == [3, 4], cluster.log("desktop")
            answer = plain.answer()
            assert (answer["transaction"], answer["answer"]) == (7, [5, 6]), answer
        assert site.wait(lambda s: s.planner is not None and not s.planner.asleep, WAIT_S)
        cluster.processes["pi"].send_signal(signal.SIGTERM)
        assert site.wait(lambda s: s.nodes.has_left("pi"), WAIT_S), "an agent that is stopped gently leaves in order"


def _ask_until_it_is_given_up(site: Site, client: Client, cluster: Cluster) -> None:
    """Asks as fast as answers come: each is an error at once, for no request waits unless it says so."""
    asked = 0
    while asked < 20 or not _text(site).startswith("given up"):
        with pytest.raises(NoCapacityError, match="it would fit on desktop, asleep"):
            client.ask("noop", left=1, right=2)
        asked += 1
        assert asked < 100_000, cluster.log("planner")


def _text(site: Site) -> str:
    return site.planner.asleep.get("desktop", "") if site.planner is not None else ""


def _shown_as_given_up(port: int) -> None:
    node = json.loads(s2m3_here("status", "--json", port=port).stdout)["nodes"]["desktop"]
    assert node["state"] == "sleeping"
    reason = "given up: wanted for the task noop, 3 magic packets 1 s apart, the last sent by pi, and it did not come"
    assert node["asleep"].startswith(reason)
    shown = " ".join(s2m3_here("status", port=port).stdout.split())
    assert "desktop: given up: wanted for the task noop, 3 magic packets" in shown


@pytest.mark.long
def test_a_better_model_on_a_sleeping_machine_answers_once_that_is_woken_and_a_stand_in_until_then(
    kind: BrokerKind,
) -> None:
    # neither has room for torch
    cluster = Cluster({"pi": 150.0, "desktop": 330.0}, kind=kind, threads=1)
    cluster.environment = {"S2M3_SLEEP_COMMAND": "true", "S2M3_STEADY_S": "0.5"}
    with cluster, listener() as card, Site(cluster.settings) as site, Client(settings=cluster.settings) as client:
        port = cluster.settings.port
        assert site.wait(lambda s: s.nodes.ready == {"pi", "desktop"} and s.planner is not None, WAIT_S)
        second = m.StandIn(model="second", definition=writer("second", 1.0))
        best = m.TaskSpec(model="best", definition=writer("best", 200.0), stand_ins=[second], deadline_s=WAIT_S)
        add_task(site, "porch", best)
        assert site.wait(lambda s: _ready_on(s) == [{"desktop"}, {"pi"}], WAIT_S), cluster.log("planner")
        assert (first := client.ask("porch", text="hello")).rank == 0, first
        where = f"127.0.0.1:{card.getsockname()[1]}"
        for words in (("set", "desktop", "--wake", MAC, "--wake-address", where), ("sleep", "desktop")):
            done = s2m3_here("node", *words, port=port)
            assert (done.returncode, done.stderr) == (0, "")
        cluster.kill("desktop")  # the machine sleeps: nothing runs on it
        assert site.wait(lambda s: s.routes["porch"].asleep == ["desktop"], WAIT_S), cluster.log("planner")
        while True:  # the client may read the route that says who sleeps a moment after the site did
            asleep = client.ask("porch", text="hello")
            assert (asleep.model, asleep.rank, asleep.value) == ("second", 1, "hello")
            if select.select([card], [], [], 0.2)[0]:
                break
        assert card.recv(200) == magic_packet(MAC)
        assert client.ask("porch", text="hello").rank == 1
        cluster.start_agent("desktop")  # what a machine does that is woken
        while (answer := client.ask("porch", text="hello")).rank:
            assert answer.model == "second"
            assert site.wait(lambda s: s.rank("porch") == 0, WAIT_S), cluster.log("planner")
        assert (answer.model, answer.value) == ("best", "hello")
        assert packets(card) == 0, "one was enough"
        assert site.wait(lambda s: s.planner is not None and not s.planner.asleep, WAIT_S)


def writer(name: str, cache_mb: float) -> Definition:
    """A model of one module without weights that takes so much memory, for its cache."""
    module = {
        "id": name,
        "role": "decoder",
        "class": "noop-writer",
        "source": "none",
        "prefix": name,
        "inputs": {"text": "text"},
        "outputs": {"text": "text"},
        "generates": "text",
        "memory_mb": 0.1,
        "cache_mb": cache_mb,
    }
    steps = {"write": {"module": name, "inputs": {"text": "input.text"}}}
    model = {"id": name, "description": name, "inputs": {"text": "text"}, "steps": steps, "answer": ["text"]}
    return Definition.model_validate({"model": model, "modules": [module]})


def _ready_on(site: Site) -> list[set[str]]:
    """The nodes with a ready copy, by rank."""
    docs = site.routes["porch"].by_rank if "porch" in site.routes else ()
    return [{r.node for step in doc.steps.values() for r in step.replicas} for doc in docs]
