"""On the shipped Mosquitto configuration: what each role must not do is refused, and our side says so in one line."""

import json
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message  # noqa: TC001  # annotations of local variables only
from s2m3.client import Client
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from tests.conftest import WAIT_S
from tests.secured.secured import SecuredSite, linked, published, secure

ROOT = "s2m3/v1"


@dataclass(frozen=True)
class Write:
    """A publication that is refused."""

    login: str
    topic: str


WRITES = {
    "an agent tells another node's state": Write("a", "node/b/state"),
    "an agent tells what another node holds": Write("a", "node/b/reported"),
    "an agent writes its own plan": Write("a", "plan/a"),
    "an agent writes a route": Write("a", "route/noop"),
    "an agent adds a task": Write("a", "task/mine"),
    "an agent orders a replan": Write("a", "control/replan"),
    "a client writes a plan": Write("alice", "plan/a"),
    "a client removes a task": Write("alice", "task/noop"),
    "a client answers another client": Write("alice", "client/bob/in"),
    "a device writes a plan": Write("bell", "plan/a"),
    "a device asks a task that is not its own": Write("bell", "request/other"),
    "a device sends work past the plain door": Write("cam", "module/noop-head/a/in"),
    "a device gives an answer": Write("bell", "response/noop"),
    "a viewer asks": Write("wall", "request/noop"),
    "a viewer orders a replan": Write("wall", "control/replan"),
    "Home Assistant writes a task": Write("home", "task/noop"),
    "the planner does an agent's work": Write("planner", "module/noop/a/in"),
    "the operator writes a plan": Write("operator", "plan/a"),
    "the bridge writes a route": Write("bridge", "route/noop"),
    "a client writes outside the site": Write("alice", "zigbee2mqtt/lamp/set"),
}


@pytest.mark.parametrize("name", WRITES)
def test_is_not_written(site: SecuredSite, shared_loop: Loop, name: str) -> None:
    login, topic = WRITES[name].login, f"{ROOT}/{WRITES[name].topic}".replace(f"{ROOT}/zigbee2mqtt", "zigbee2mqtt")
    with (
        linked(site, shared_loop, login) as link,
        pytest.raises(UnauthorisedError, match=f"publish on {topic}") as told,
    ):
        published(link, topic)
    assert "secure ls" in str(told.value)


@dataclass(frozen=True)
class Read:
    """A subscription that brings nothing: `writer` publishes on `topic`; then `teller` on `own`, which does come."""

    login: str
    topic_filter: str
    topic: str
    writer: str
    own: str
    teller: str


READS = {
    "a client reads another client's answers": Read(
        "alice", "client/bell/in", "client/bell/in", "a", "client/alice/in", "a"
    ),
    "a device reads everything": Read("bell", "#", "client/alice/in", "a", "response/noop", "a"),
    "a device reads the answers of a task that is not its own": Read(
        "cam", "response/+", "response/noop", "a", "client/cam/in", "a"
    ),
    "a client reads others' requests": Read("alice", "request/+", "request/x", "home", "client/alice/in", "a"),
    "a viewer reads others' answers": Read("wall", "client/+/in", "client/alice/in", "a", "event", "a"),
    "an agent reads another node's work": Read("b", "module/+/a/in", "module/x/a/in", "a", "module/x/b/in", "a"),
    "an agent reads another node's plan": Read("b", "plan/+", "plan/a", "planner", "plan/b", "planner"),
}


@pytest.mark.parametrize("name", READS)
def test_is_not_read(site: SecuredSite, shared_loop: Loop, name: str) -> None:
    """Mosquitto's access file confirms any subscription, and then delivers only what the login may read."""
    case = READS[name]
    messages: queue.Queue[Message] = queue.Queue()
    confirmed = threading.Event()
    with linked(site, shared_loop, case.login) as link, linked(site, shared_loop, case.writer) as writer:
        link.subscribe(case.topic_filter if case.topic_filter == "#" else f"{ROOT}/{case.topic_filter}", messages.put)
        link.subscribe(f"{ROOT}/{case.own}", messages.put, on_subscribed=confirmed.set)
        assert confirmed.wait(WAIT_S)
        published(writer, f"{ROOT}/{case.topic}")
        with linked(site, shared_loop, case.teller) as teller:
            published(teller, f"{ROOT}/{case.own}", b"own")
        while (message := messages.get(timeout=WAIT_S)).payload != b"own":
            assert message.topic != f"{ROOT}/{case.topic}"


def _anonymous(settings: AgentSettings, site: SecuredSite) -> AgentSettings:
    return _but(settings, username=None, password=None, port=site.ports[8884])


def _but(settings: AgentSettings, **changes: object) -> AgentSettings:
    return settings.model_copy(update=changes)


LOGINS: dict[str, tuple[str, Callable[[AgentSettings, SecuredSite], AgentSettings], str]] = {
    "anonymous": ("bell", _anonymous, "Not authorized"),
    "a wrong password": (
        "bell",
        lambda s, _: _but(s, password=AgentSettings.load(password="guessed").password),  # noqa: S106
        "Not authorized|Bad user name",
    ),
    "another's name with one's own password": (
        "bell",
        lambda s, _: _but(s, username="wall"),
        "Not authorized|Bad user",
    ),
    "no certificate": ("alice", lambda s, _: _but(s, tls_cert=None, tls_key=None), "wants a certificate|3 times"),
    "a certificate of another authority": ("bob", lambda s, _: s, "not of the broker's CA|3 times"),
    "an expired certificate": ("late", lambda s, _: s, "has expired|3 times"),
    "a revoked certificate": ("gone", lambda s, _: s, "was revoked|3 times"),
    "a broker of another authority": (
        "alice",
        lambda s, site: _but(s, tls_ca=site.folder / "broker" / "server.crt"),
        "is not who it should be",
    ),
    "a broker under a name that is not its own": (
        "alice",
        lambda s, _: _but(s, host="127.1"),
        "is not who it should",
    ),
    "no encryption": ("alice", lambda s, _: _but(s, tls_ca=None), "TLS"),
    "TLS where none is spoken": ("alice", lambda s, site: _but(s, port=site.plain), "right port|TLS on one side only"),
}


@pytest.mark.parametrize("name", LOGINS)
def test_does_not_come_in(site: SecuredSite, shared_loop: Loop, name: str) -> None:
    login, changed, expected = LOGINS[name]
    link = Link(changed(site.settings(login), site), f"forbidden-{login}", shared_loop)
    with pytest.raises(UnauthorisedError, match=expected) as told:
        link.start(WAIT_S)
    assert "\n" not in str(told.value)
    link.stop()


@pytest.mark.parametrize("login", ["bell", "wall", "home"])
def test_a_login_that_is_no_clients_is_told_so_before_it_asks(site: SecuredSite, login: str) -> None:
    with pytest.raises(UnauthorisedError, match=f"publish on {ROOT}/client/"):
        Client(settings=site.settings(login))


def test_a_client_with_another_s_name_is_told_so(site: SecuredSite) -> None:
    with pytest.raises(UnauthorisedError, match=f"publish on {ROOT}/client/bell/in"):
        Client(settings=site.settings("alice").model_copy(update={"client": "bell"}))


COMMANDS = {
    "an agent under another node's name": ("a", ["agent", "--node", "b"], "publish on s2m3/v1/"),
    "a planner with an agent's login": ("a", ["planner"], "publish on s2m3/v1/"),
    "an agent with a client's login": ("alice", ["agent", "--node", "alice"], "publish on s2m3/v1/"),
    "a task added by a client": ("alice", ["task", "add", "x", "--model", "noop"], "publish on s2m3/v1/task/x"),
    "a question from a device that may not ask directly": ("bell", ["ask", "noop"], "publish on s2m3/v1/client/"),
    "a revoked login": ("gone", ["status"], "revoked|3 times"),
    "an expired login": ("late", ["ask", "noop"], "expired|3 times"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ends_with_exit_code_1_and_one_line(site: SecuredSite, name: str) -> None:
    login, words, expected = COMMANDS[name]
    done = site.run(login, *words)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("s2m3: ")]
    assert line.startswith("s2m3: unauthorised: ")
    assert re.search(expected, line), line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["ca.crt", "client.crt", "client.key"])
def test_a_missing_file_is_named_and_exits_2(site: SecuredSite, tmp_path: Path, missing: str) -> None:
    shutil.copytree(site.folder / "logins" / "alice", tmp_path / "alice")
    (tmp_path / "alice" / missing).unlink()
    done = site.run("alice", "status", S2M3_CONFIG=str(tmp_path / "alice" / "s2m3.toml"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert missing in done.stderr


def test_a_login_that_reads_nothing_is_told_that_this_may_be_why(site: SecuredSite) -> None:
    done = site.run("cam", "status")
    assert "this login may not read" in done.stderr


@pytest.mark.parametrize("topic", ["plan/a", "task/noop", "client/alice/in", "module/x/a/in"])
def test_a_listener_beside_ours_writes_anything_but_our_topics(
    site: SecuredSite, shared_loop: Loop, topic: str
) -> None:
    """As an existing Mosquitto has one, with the access list that `secure` writes for it."""
    link = Link(BrokerSettings(port=site.plain), "from-the-house", shared_loop)
    link.start(WAIT_S)
    published(link, "zigbee2mqtt/lamp", b"on")
    with pytest.raises(UnauthorisedError, match=topic):
        published(link, f"{ROOT}/{topic}")
    link.stop()


def test_home_assistant_on_a_listener_beside_ours_keeps_its_login_and_gets_its_rights(
    site: SecuredSite, shared_loop: Loop
) -> None:
    """Its one connection is for all that a household has: it stays where it is."""
    secure("add", site.folder, "home-assistant", "mqtt_user", "--existing")
    site.restart()
    theirs = BrokerSettings(port=site.plain, username="mqtt_user", password=SecretStr("checked by that listener"))
    link = Link(theirs, "their-home-assistant", shared_loop)
    link.start(WAIT_S)
    heard = threading.Event()
    link.subscribe(f"{ROOT}/bridge/task/+", lambda _: heard.set())
    bridge = Link(site.settings("bridge"), "test-bridge", shared_loop)
    bridge.start(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while not heard.wait(0.5):  # the broker takes its time to reload
        assert time.monotonic() < deadline
        published(bridge, f"{ROOT}/bridge/task/noop")
    published(link, f"{ROOT}/bridge/ask/noop", b"what?")
    published(link, "zigbee2mqtt/lamp", b"on")
    with pytest.raises(UnauthorisedError, match="plan/a"):
        published(link, f"{ROOT}/plan/a")
    for one in (link, bridge):
        one.stop()
    assert json.loads(secure("ls", site.folder, "--json").stdout)[-1]["login"] == "existing"
    secure("revoke", site.folder, "mqtt_user")
    assert "mqtt_user" not in (site.folder / "broker" / "acl-others").read_text()


def test_a_front_s_session_cannot_be_taken_over_by_its_name(running: SecuredSite, shared_loop: Loop) -> None:
    """Whoever connects with a task's client id gets its requests: here nobody else knows it."""
    settings = running.settings("alice")
    thief = Link(settings, "s2m3-front-noop", shared_loop, session_expiry_s=60, manual_ack=True, reconnect=False)
    thief.start(WAIT_S)
    device = running.settings("bell")
    asking = Link(device, "asks", shared_loop)
    asking.start(WAIT_S)
    answers: queue.Queue[Message] = queue.Queue()
    confirmed = threading.Event()
    asking.subscribe(f"{ROOT}/response/noop", answers.put, on_subscribed=confirmed.set)
    assert confirmed.wait(WAIT_S)
    published(asking, f"{ROOT}/request/noop", b'{"inputs": {"left": 1, "right": 2}}')
    assert b'"ok"' in answers.get(timeout=WAIT_S).payload
    asking.stop()
    thief.stop()
