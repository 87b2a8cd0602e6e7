"""On the shipped Mosquitto configuration, with TLS and access lists: every role does all that it must."""

import json
import queue
import re
import ssl
import subprocess
import time
from functools import partial
from typing import Any

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.client import Client
from s2m3.schemas.errors import RequestTimeoutError, UnauthorisedError
from s2m3.snapshot import Site
from tests.broker.test_link import reached
from tests.conftest import WAIT_S
from tests.secured.secured import SecuredSite, fits, linked, published, restart, secure
from tests.system.plain import reply_to

ROOT = "s2m3/v1"


class Password:
    """Software that is not ours: a password over TLS, 3.1.1, plain or over websockets."""

    def __init__(
        self,
        site: SecuredSite,
        login: str,
        topics: list[str],
        *,
        websockets: bool = False,
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        settings = site.settings(login)
        assert settings.password is not None
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.subscribed: queue.Queue[None] = queue.Queue()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=version,
            transport="websockets" if websockets else "tcp",
        )
        self.client.tls_set_context(ssl.create_default_context(cafile=str(settings.tls_ca)))
        self.client.username_pw_set(login, settings.password.get_secret_value())
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda *_: self.subscribed.put(None)
        self.client.connect("127.0.0.1", site.ports[8885 if websockets else 8884])
        self.client.loop_start()
        self.client.subscribe([(topic, 1) for topic in topics])
        self.subscribed.get(timeout=WAIT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_operator_and_viewer_see_the_whole_site(running: SecuredSite) -> None:
    for login in ("operator", "wall"):
        shown = running.run(login, "status", "--json")
        assert shown.returncode == 0, shown.stderr
        document = json.loads(shown.stdout)
        assert {name: node["state"] for name, node in document["nodes"].items()} == {"a": "ready", "b": "ready"}
        assert document["tasks"]["noop"]["ready"]
        assert document["planner"]["state"] == "online"


def test_a_client_asks_and_its_answers_come_to_its_own_inbox(running: SecuredSite) -> None:
    with Client(settings=running.settings("alice")) as client:
        answers = [client.ask("noop", left=i, right=i) for i in range(5)]
    assert all(answer.attempts == 1 for answer in answers)
    assert {node for answer in answers for node in answer.route.values()} <= {"a", "b"}


def test_two_clients_of_one_login_each_get_their_own_answers(running: SecuredSite) -> None:
    settings = running.settings("alice")
    with Client(settings=settings) as one, Client(settings=settings) as other:
        replies = [client.submit("noop", left=i, right=i) for i in range(20) for client in (one, other)]
        assert len({reply.result(WAIT_S).request for reply in replies}) == 40


@pytest.mark.parametrize("websockets", [False, True], ids=["tcp", "websockets"])
def test_a_plain_device_asks_its_task_and_reads_the_answer(running: SecuredSite, websockets: bool) -> None:  # noqa: FBT001  # a parameter
    device = Password(running, "bell", [f"{ROOT}/response/noop"], websockets=websockets)
    body = {"transaction": 7, "inputs": {"left": 1, "right": 2}}
    device.client.publish(f"{ROOT}/request/noop", json.dumps(body), qos=1)
    answer = json.loads(device.messages.get(timeout=WAIT_S).payload)
    device.close()
    assert (answer["status"], answer["transaction"]) == ("ok", 7)


def test_a_device_is_told_that_a_task_does_not_exist_and_reads_the_value_of_one_that_does(running: SecuredSite) -> None:
    """`bell` may ask `noop` only and reads its answers; `cam` may ask any task and has no topic but its inbox."""
    inbox = f"{ROOT}/client/cam/in"
    cam = Password(running, "cam", [inbox], version=MQTTProtocolVersion.MQTTv5)
    bell = Password(running, "bell", [f"{ROOT}/response/noop/value"])
    cam.client.publish(f"{ROOT}/request/ghost/left/c", b"a", qos=1, properties=reply_to(inbox, b"7"))
    answer = json.loads(cam.messages.get(timeout=WAIT_S).payload)
    assert (answer["error"]["code"], answer["transaction"]) == ("unknown_task", "c")
    bell.client.publish(f"{ROOT}/request/noop", b'{"inputs": {"left": 1, "right": 2}}', qos=1)
    assert bell.messages.get(timeout=WAIT_S).payload == b"[1, 2]"
    for device in (cam, bell):
        device.close()


def test_a_websockets_viewer_reads_what_is_told_to_all(running: SecuredSite) -> None:
    viewer = Password(running, "wall", [f"{ROOT}/planner/state", f"{ROOT}/node/+/state"], websockets=True)
    heard = {viewer.messages.get(timeout=WAIT_S).topic for _ in range(3)}
    viewer.close()
    assert heard == {f"{ROOT}/planner/state", f"{ROOT}/node/a/state", f"{ROOT}/node/b/state"}


def test_home_assistant_asks_and_orders(running: SecuredSite, shared_loop: Loop) -> None:
    with linked(running, shared_loop, "home") as link:
        published(link, f"{ROOT}/request/noop", b'{"inputs": {"left": 1, "right": 2}}')
        published(link, f"{ROOT}/control/replan", b"{}")
        published(link, "homeassistant/status", b"online")


def test_the_operator_replans_measures_and_changes_tasks(running: SecuredSite) -> None:
    for words in (["replan", "--measure"], ["task", "add", "second", "--model", "noop"], ["task", "rm", "second"]):
        done = running.run("operator", *words)
        assert done.returncode == 0, done.stderr


def test_a_task_s_session_goes_to_another_front_with_its_requests(running: SecuredSite) -> None:
    """Planner, and whichever agent is the gateway, hold the same secret client id."""
    with Site(running.settings("operator")) as seen:
        assert seen.wait(lambda s: len(_gateways(s)) == 1, WAIT_S), seen.plans  # two for a moment while it moves
        (gateway,) = _gateways(seen)
        drained = running.run("operator", "drain", gateway)
        assert drained.returncode == 0, drained.stderr
        other = {"a": "b", "b": "a"}[gateway]
        assert seen.wait(lambda s: other in s.plans and "noop" in s.plans[other].gateways, WAIT_S)
        undone = running.run("operator", "drain", gateway, "--undo", "--wait", f"{WAIT_S:g}")
        assert (undone.returncode, undone.stdout) == (0, f"{gateway} takes work again\n"), undone.stderr
    device = Password(running, "bell", [f"{ROOT}/response/noop"])
    device.client.publish(f"{ROOT}/request/noop", b'{"inputs": {"left": 1, "right": 2}}', qos=1)
    answer = json.loads(device.messages.get(timeout=WAIT_S).payload)
    device.close()
    assert answer["status"] == "ok"


def _gateways(site: Site) -> list[str]:
    return [node for node, plan in site.plans.items() if "noop" in plan.gateways]


def test_a_login_made_while_the_broker_runs_works_after_a_restart_and_a_revoked_one_stops(
    site: SecuredSite, shared_loop: Loop
) -> None:
    secure("add", site.folder, "client", "visitor")
    site.restart()
    settings = site.settings("visitor")  # read before `revoke` removes them, as a thief would
    stolen = {path: path.read_bytes() for path in (site.folder / "logins" / "visitor").iterdir()}
    with linked(site, shared_loop, "visitor") as link:
        published(link, f"{ROOT}/request/noop")
        secure("revoke", site.folder, "visitor")
        site.restart()
        assert reached(lambda: link.refused is not None)
    for path, content in stolen.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(Exception, match=r"revoked|closed"):
        Client(settings=settings)


def test_a_revoked_login_hears_why_although_the_broker_closed_before_it_spoke(site: SecuredSite) -> None:
    """With TLS 1.3 the broker judges a certificate while a busy device has yet to send its first packet."""
    busy = Loop("test-busy")
    busy.start()
    busy.every(0.01, partial(time.sleep, 0.2))
    link = Link(site.settings("gone"), "s2m3-busy", busy)
    with pytest.raises(UnauthorisedError, match="was revoked"):
        link.start(WAIT_S)
    busy.stop()


def test_a_renewed_certificate_of_the_broker_is_shown_after_a_restart(running: SecuredSite) -> None:
    running.open().renew_server(("renewed.local",))
    expected = (running.folder / "broker" / "server.crt").read_text().strip()
    restart(running)
    deadline = time.monotonic() + WAIT_S
    while ssl.get_server_certificate(("127.0.0.1", running.ports[8884])).strip() != expected:
        assert time.monotonic() < deadline
    with Client(settings=running.settings("alice")) as client:
        client.ask("noop", left=1, right=2)


def test_a_client_whose_rights_are_taken_back_hears_so_from_its_next_question(running: SecuredSite) -> None:
    running.open().add("client", "guest", "certificate")
    restart(running)
    with Client(settings=running.settings("guest")) as client:
        client.ask("noop", left=1, right=2)
        running.open().revoke("guest")
        restart(running)
        _until_refused(lambda: client.ask("noop", left=1, right=2))


def _until_refused(attempt: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            attempt()
        except Exception as error:  # noqa: BLE001  # its code is what is looked at
            assert getattr(error, "code", "") == "unauthorised"  # noqa: PT017  # the same
            return
    raise AssertionError("the broker never heard of it")


def test_an_answer_to_a_topic_that_agents_may_not_write_is_an_error_where_all_may_read_it(running: SecuredSite) -> None:
    device = Password(running, "bell", [f"{ROOT}/response/noop"], version=MQTTProtocolVersion.MQTTv5)
    body = {"transaction": 8, "inputs": {"left": 1, "right": 2}}
    elsewhere = reply_to("somewhere/else", b"1")
    device.client.publish(f"{ROOT}/request/noop", json.dumps(body), qos=1, properties=elsewhere)
    answer = json.loads(device.messages.get(timeout=WAIT_S).payload)
    device.close()
    assert (answer["transaction"], answer["error"]["code"]) == (8, "unauthorised")
    assert "somewhere/else" in answer["error"]["detail"]
    assert "." not in answer["error"]["detail"].split("let ")[1].split()[0]  # the client id's tag stays secret


def test_an_inbox_that_agents_may_not_write_costs_its_owner_the_answer_and_no_agent_its_connection(
    running: SecuredSite,
) -> None:
    running.open().add("client", "mute", "certificate")
    listed = running.folder / "broker" / "acl"
    kept = listed.read_text()
    listed.write_text(re.sub(r"^user [ab]$", rf"\g<0>\ntopic deny {ROOT}/client/mute/in", kept, flags=re.MULTILINE))
    restart(running)
    with (
        Client(settings=running.settings("mute")) as mute,
        Client(settings=running.settings("alice")) as alice,
        Site(running.settings("operator")) as seen,
    ):
        assert seen.wait(lambda s: bool(s.nodes.ready), WAIT_S)
        boots = {node: seen.nodes.boot(node) for node in seen.nodes.ready}
        with pytest.raises(RequestTimeoutError):  # nobody could tell it
            mute.ask("noop", left=1, right=2, deadline_s=2)
        assert alice.ask("noop", left=1, right=2).value == [1, 2]
        assert {node: seen.nodes.boot(node) for node in seen.nodes.ready} == boots
    assert reached(lambda: any("answer_refused" in running.told(node) for node in boots))
    listed.write_text(kept)
    restart(running)
    with Client(settings=running.settings("mute")) as mute:
        assert mute.ask("noop", left=1, right=2).value == [1, 2]


def test_nobody_of_ours_subscribes_to_what_its_role_may_not_read(running: SecuredSite) -> None:
    """Mosquitto confirms such a subscription and delivers nothing: it would be noticed by nobody."""
    log = running.log()[running.before :]
    logins = dict(re.findall(r" as (\S+) \(p\d, c\d, k\d+, u'([\w-]+)'\)", log))
    subscribed = re.findall(r"^\d+: (s2m3-\S+) [01] (\S+)$", log, re.MULTILINE)
    asked = {(logins[client], topic) for client, topic in subscribed}
    assert {"planner", "a", "b", "operator", "alice", "wall", "bridge"} <= {login for login, _ in asked}
    reads = {login: right.reads for login, right in running.open().registry.rights().items()}
    unread = [
        (login, topic)
        for login, topic in sorted(asked)
        if login in reads and not any(fits(may.split("/"), topic.split("/")) for may in reads[login])
    ]
    assert unread == []


def test_a_binding_that_the_bridge_may_not_read_says_what_to_look_at_until_it_hears(
    running: SecuredSite, shared_loop: Loop
) -> None:
    running.open().add("client", "bench", "certificate", writes=["elsewhere/#"])
    restart(running)
    what = ("--task", "noop", "--input", "left", "--set", "right=r", "--publish", "answers/noop", "--name", "silent")
    bound = running.run("operator", "bind", "elsewhere/+", *what)
    assert bound.returncode == 0, bound.stderr
    with linked(running, shared_loop, "bench") as link, Site(running.settings("operator")) as site:
        published(link, "elsewhere/one")
        said = " ".join(running.run("operator", "bindings").stdout.split())
        assert "nothing heard yet" in said
        assert "--read 'elsewhere/+'" in said.replace("│ ", "")
        running.open().add("bridge", "bridge", "certificate", reads=["elsewhere/+"], writes=["answers/noop"])
        restart(running)
        deadline = time.monotonic() + WAIT_S
        while not site.wait(lambda s: s.reports["silent"].published > 0, 1.0):
            assert time.monotonic() < deadline, site.reports
            published(link, "elsewhere/two")
    assert "nothing heard yet" not in running.run("operator", "bindings").stdout
    assert running.run("operator", "unbind", "silent").returncode == 0


def test_everybody_comes_back_to_a_broker_that_was_killed(running: SecuredSite) -> None:
    """A handshake that the broker's death cuts short is no refusal."""
    with Client(settings=running.settings("alice")) as client, Site(running.settings("operator")) as seen:
        for _ in range(2):
            running.kill()
            running.start()
            assert seen.wait(lambda s: s.nodes.present == {"a", "b"} and s.ready("noop"), 2 * WAIT_S), running.log()[
                -3000:
            ]
            assert client.ask("noop", left=1, right=2, deadline_s=WAIT_S).attempts >= 1


def test_a_node_that_hangs_is_lost_and_comes_back_and_the_planner_goes_on(running: SecuredSite) -> None:
    with Site(running.settings("operator")) as seen, Client(settings=running.settings("alice")) as client:
        assert seen.wait(lambda s: s.nodes.ready == {"a", "b"}, WAIT_S)
        supervisor = psutil.Process(running.spawned["b"].pid)
        frozen = [supervisor, *supervisor.children(recursive=True)]
        for process in frozen:
            process.suspend()
        try:
            assert seen.wait(lambda s: "b" in s.nodes.lost and s.ready("noop"), WAIT_S), running.told("planner")[-2000:]
            assert set(client.ask("noop", left=1, right=2, deadline_s=WAIT_S).route.values()) == {"a"}
        finally:
            for process in frozen:
                process.resume()
        assert seen.wait(lambda s: s.nodes.ready == {"a", "b"}, WAIT_S), running.told("planner")[-2000:]
    assert running.spawned["planner"].poll() is None, running.told("planner")[-2000:]


def test_nobody_of_ours_publishes_what_its_role_may_not_write(running: SecuredSite) -> None:
    log = running.log()[running.before :]
    logins = dict(re.findall(r" as (\S+) \(p\d, c\d, k\d+, u'([\w-]+)'\)", log))
    denied = re.findall(r"Denied PUBLISH from (\S+) \(d\d, q\d, r\d, m\d+, '([^']+)'", log)
    ours = ("planner", "a", "b", "bridge", "operator")
    asked_for = {f"{ROOT}/client/mute/in", "somewhere/else"}  # by other tests of this file
    assert {(logins.get(client), topic) for client, topic in denied if logins.get(client) in ours} <= {
        (node, topic) for node in "ab" for topic in asked_for
    }


def test_secrets_are_neither_printed_nor_logged_nor_on_a_command_line(running: SecuredSite) -> None:
    printed = secure("ls", running.folder).stdout + secure("add", running.folder, "device", "lamp").stdout
    password, key = running.settings("lamp").password, running.settings("a").session_key
    assert password is not None
    assert key is not None
    logs = "".join(path.read_text(errors="replace") for path in running.folder.parent.glob("*.log"))
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "PRIVATE KEY" not in printed + logs
    for secret in (password.get_secret_value(), key.get_secret_value()):
        assert secret not in printed + logs + commands
