"""Two bridged Mosquittos, by the shipped bridge.conf: nodes on both sides, requests that cross, deaths seen across."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import free_port
from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.broker.test_link import _wait_for
from tests.chaos.proxy import Proxy
from tests.conftest import WAIT_S, has_mosquitto
from tests.secured.conftest import READY_S
from tests.secured.secured import ENVIRONMENT, SecuredSite, ended, python_s2m3, secure, short_folder
from tests.system.plain import PlainCaller

BRIDGE = Path(__file__).parents[2] / "deploy" / "bridge.conf"


class Bridged:
    """The secured hub, and the shed's own broker, open on loopback, bridged with a neighbour's login."""

    def __init__(self, folder: Path) -> None:
        self.hub = SecuredSite(folder)
        logins = ["agent:a", "client:alice", "neighbour:shed"]
        extra = [word for login in logins for word in ("--add", login)]
        secure("init", self.hub.folder, "--host", "127.0.0.1", *extra)
        self.hub.start()
        self.shed = BrokerSettings(port=free_port())
        self.link = Proxy(self.hub.ports[8883]).__enter__()
        bridge = BRIDGE.read_text().replace("hub.local:8883", f"127.0.0.1:{self.link.port}")
        bridge = bridge.replace("/etc/mosquitto/shed", str(self.hub.folder / "logins" / "shed"))
        user = pwd.getpwuid(os.geteuid()).pw_name
        own = f"user {user}\nlistener {self.shed.port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n{bridge}"
        (folder / "shed.conf").write_text(own)
        self._log = (folder / "shed.log").open("ab")
        self.broker = subprocess.Popen(["mosquitto", "-c", folder / "shed.conf"], stderr=self._log, env=ENVIRONMENT)
        _wait_for(self.shed.port)
        self.processes = {"planner": self.hub.spawn("planner", "planner"), "a": self.agent("a"), "c": self.agent("c")}

    def agent(self, node: str) -> subprocess.Popen[bytes]:
        """`a` is at the hub, `c` in the shed."""
        words = ["agent", "--memory-mb", "150", "--node", node]
        if node == "a":
            return self.hub.spawn("a", *words)
        return python_s2m3(*words, "--no-gateway", "--port", str(self.shed.port), env=ENVIRONMENT, log=self._log)

    def stop(self) -> None:
        for process in self.processes.values():
            ended(process)
        ended(self.broker)
        self.link.__exit__()
        self.hub.stop()
        self._log.close()


@pytest.fixture(scope="module")
def bridged() -> Iterator[Bridged]:
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    with short_folder() as folder:
        made = Bridged(folder)
        yield made
        made.stop()


def test_requests_answers_and_deaths_cross_the_bridge(bridged: Bridged) -> None:
    with Site(bridged.hub.settings("operator")) as site:
        assert site.wait(lambda s: s.nodes.ready == {"a", "c"}, READY_S)
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=15))
        assert site.wait(lambda s: s.ready("noop"), READY_S)
        for node, other in (("a", "c"), ("c", "a")):
            bridged.processes[node].kill()
            bridged.processes[node].wait(WAIT_S)
            assert site.wait(lambda s, n=node: n in s.nodes.lost and s.ready("noop"), READY_S)  # type: ignore[misc]
            for settings in (bridged.hub.settings("alice"), bridged.shed):
                with Client(settings=settings) as client:
                    answer = client.ask("noop", left=1, right=2)
                assert set(answer.route.values()) == {other}
            bridged.processes[node] = bridged.agent(node)
            assert site.wait(lambda s: s.nodes.ready == {"a", "c"}, READY_S)


def test_a_plain_request_in_the_shed_is_answered_there_by_the_front_at_the_hub(bridged: Bridged) -> None:
    with Site(bridged.hub.settings("operator")) as site:
        add_task(site, "plain", m.TaskSpec(model="noop", deadline_s=15))
        assert site.wait(lambda s: s.ready("plain") and "plain" in s.plans["a"].gateways, READY_S)
    with PlainCaller(bridged.shed.port, 4, ("s2m3/v1/response/plain",)) as caller:
        caller.send("s2m3/v1/request/plain", b'{"transaction": 3, "inputs": {"left": 1, "right": 2}}')
        answer = caller.answer()
    assert (answer["status"], answer["transaction"]) == ("ok", 3)


def test_hub_and_shed_each_go_on_while_their_link_is_down(bridged: Bridged) -> None:
    """Each side goes by the heartbeats that itself hears; afterwards the planner asks who is there."""
    with Site(bridged.hub.settings("operator")) as site, Site(bridged.shed) as shed:
        assert site.wait(lambda s: s.nodes.ready == {"a", "c"}, READY_S)
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=WAIT_S))
        assert site.wait(lambda s: s.ready("noop") and len(s.routes["noop"].nodes) == 2, READY_S)
        with Client(settings=bridged.shed) as near_c, Client(settings=bridged.hub.settings("alice")) as near_a:
            for client in (near_c, near_a):
                client.ask("noop", left=1, right=2)
            heard = shed.loads.get("a")
            assert shed.wait(lambda s: s.loads.get("a") is not heard, WAIT_S), "its heartbeats do not cross"
            bridged.link.refuse()
            answers = {"a": near_a.ask("noop", left=1, right=2), "c": near_c.ask("noop", left=1, right=2)}
            assert site.wait(lambda s: "c" in s.nodes.lost and s.ready("noop"), READY_S)
            bridged.link.mend()
            assert site.wait(lambda s: s.nodes.ready == {"a", "c"}, READY_S), bridged.hub.told("planner")[-2000:]
    assert [answer.value for answer in answers.values()] == [[1, 2], [1, 2]]
    assert {node: set(answer.route.values()) for node, answer in answers.items()} == {"a": {"a"}, "c": {"c"}}
