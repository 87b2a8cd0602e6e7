"""Logging in as any viewer does, and what the websocket listener lets the page's user do: read, ask, nothing else."""

import queue
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from playwright.sync_api import expect

from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.page_server import PageServer
from tests.conftest import WAIT_S, has_mosquitto
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller


def test_the_page_asks_for_a_login_where_the_broker_does(kind: BrokerKind, open_page: Open) -> None:
    with Broker(kind, ws_port=0) as broker, Teller(broker) as teller:
        assert broker.page is not None
        teller.tell(*RecordedSite(nodes=3, modules=8, tasks=3).retained())
        with PageServer(broker.page.url, root=ROOT) as server:
            page = open_page(server.url)
            expect(page.get_by_role("heading", name="Log in")).to_be_visible()
            page.get_by_label("User").fill(broker.page.username)
            page.get_by_label("Password").fill("wrong")
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("[data-problem=refused], [data-problem=offline]")).to_contain_text("login")
            page.get_by_label("Password").fill(broker.page.password)
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("[data-node=node-00]")).to_be_visible()
            expect(page.get_by_role("heading", name="Log in")).to_be_hidden()


def test_nobody_answering_is_said_and_tried_again(kind: BrokerKind, open_page: Open) -> None:
    with Broker(kind, ws_port=0) as broker:
        assert broker.page is not None
        door = broker.page
        broker.stop()
        with PageServer(door.url, root=ROOT, door=door) as server:
            page = open_page(server.url)
            expect(page.locator("[data-problem=offline]")).to_contain_text(f"No answer from {door.url}")
            expect(page.locator("[data-phase=offline]")).to_be_visible()
            broker.start()
            expect(page.locator("[data-phase=online]")).to_be_visible()


class Viewer:
    """The page's user on the websocket listener, with the intentions of an attacker."""

    def __init__(self, broker: Broker) -> None:
        assert broker.page is not None
        self.heard: queue.Queue[str] = queue.Queue()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, transport="websockets", protocol=MQTTProtocolVersion.MQTTv311
        )
        self.client.username_pw_set(broker.page.username, broker.page.password)
        ready: queue.Queue[None] = queue.Queue()
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: ready.put(None)
        self.client.on_message = lambda _c, _u, message: self.heard.put(message.topic)
        self.client.connect("127.0.0.1", broker.page.port)
        self.client.loop_start()
        ready.get(timeout=WAIT_S)

    def _on_connect(self, *_: object) -> None:
        self.client.subscribe("#", 1)


@pytest.fixture
def door() -> Iterator[Broker]:
    """Mosquitto: the embedded broker has no access lists."""
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    with Broker("mosquitto", ws_port=0) as broker:
        yield broker


@pytest.fixture
def viewer(door: Broker) -> Iterator[Viewer]:
    made = Viewer(door)
    yield made
    made.client.disconnect()
    made.client.loop_stop()


FORBIDDEN = ["task/x", "plan/pi", "route/x", "node/pi/state", "control/replan", "module/m/pi/in", "event", "response/x"]


def test_the_pages_user_may_ask_and_write_nothing_else(door: Broker, viewer: Viewer) -> None:
    heard: queue.Queue[str] = queue.Queue()
    witness = paho.Client(CallbackAPIVersion.VERSION2)
    ready: queue.Queue[None] = queue.Queue()
    witness.on_subscribe = lambda *_: ready.put(None)
    witness.on_message = lambda _c, _u, message: heard.put(message.topic)
    witness.connect("127.0.0.1", door.port)
    witness.loop_start()
    witness.subscribe("#", 1)
    ready.get(timeout=WAIT_S)
    for topic in [*FORBIDDEN, "request/x"]:
        viewer.client.publish(f"{ROOT}/{topic}", b"{}", qos=1).wait_for_publish(WAIT_S)
    first = heard.get(timeout=WAIT_S)
    witness.disconnect()
    witness.loop_stop()
    assert first == f"{ROOT}/request/x", "something before it came through"


def test_the_pages_user_reads_what_is_told_to_all_and_nothing_else(door: Broker, viewer: Viewer) -> None:
    private = ["module/m/pi/in", "client/c/in", "request/x", "request/x/image", "control/replan"]
    with Teller(door) as teller:
        for topic in [*private, "node/pi/state"]:
            teller.say(topic, {}, retain=False)
    assert viewer.heard.get(timeout=WAIT_S) == f"{ROOT}/node/pi/state"
