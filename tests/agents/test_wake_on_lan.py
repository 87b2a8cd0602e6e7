"""Magic packets as they are on the wire, and orders to send them."""

import socket
from ipaddress import IPv4Network
from types import SimpleNamespace

import psutil
import pytest

from s2m3.agents import orders as orders_module
from s2m3.agents import wake_on_lan
from s2m3.agents.orders import Orders
from s2m3.agents.wake_on_lan import magic_packet, own_network, send_magic_packet
from s2m3.schemas import topics
from s2m3.schemas.messages import ControlRequest
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from s2m3.schemas.sleep import NodeSettings, WakeOrder
from tests.recorders import ManualLoop, RecordedLink

MAC = "52:54:00:12:34:56"
WAIT_S = 10.0


def test_a_magic_packet_is_six_bytes_of_ones_and_sixteen_times_the_address() -> None:
    packet = magic_packet(MAC)
    assert len(packet) == 102
    assert packet == b"\xff\xff\xff\xff\xff\xff" + bytes([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]) * 16


def test_a_packet_sent_to_an_address_comes_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(WAIT_S)
        receiver.bind(("127.0.0.1", 0))
        assert send_magic_packet(MAC, "127.0.0.1", receiver.getsockname()[1]) == ["127.0.0.1"]
        assert receiver.recv(200) == magic_packet(MAC)


def test_without_an_address_it_goes_to_the_broadcast_address_of_every_network_but_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interface(family: int, address: str, netmask: str | None, broadcast: str | None) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=address, netmask=netmask, broadcast=broadcast)

    found = {
        "lo": [interface(socket.AF_INET, "127.0.0.1", "255.0.0.0", None)],
        "eth0": [
            interface(socket.AF_INET, "192.168.1.7", "255.255.255.0", "192.168.1.255"),
            interface(socket.AF_INET6, "fe80::1", None, None),
        ],
        "tun0": [interface(socket.AF_INET, "10.8.0.2", "255.255.255.255", None)],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    assert wake_on_lan._broadcast_addresses() == ["192.168.1.255"]  # noqa: SLF001
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"lo": found["lo"]})
    assert wake_on_lan._broadcast_addresses() == ["255.255.255.255"]  # noqa: SLF001


def test_what_cannot_be_sent_anywhere_is_an_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        send_magic_packet(MAC, "::1", 9)


def test_the_own_network_is_one_of_this_host_or_not_known() -> None:
    network = own_network()
    addresses = [one for found in psutil.net_if_addrs().values() for one in found if one.family == socket.AF_INET]
    known = {str(IPv4Network(f"{one.address}/{one.netmask}", strict=False)) for one in addresses}
    assert network in known | {""}


# ---- orders --------------------------------------------------------------------------------------------------------


class Node:
    """The orders of a node, with a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
        self.now, self.drained, self.undrained = 100.0, 0, 0
        self.sent: list[tuple[str, str | None, int]] = []
        monkeypatch.setattr(orders_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(orders_module, "send_magic_packet", self._send)
        self.link = RecordedLink(BrokerSettings(root="home"), "node-desktop", ManualLoop())
        self.orders = Orders(
            AgentSettings.load(node="desktop", root="home", **settings),
            self.link,  # type: ignore[arg-type]
            drain=self._drain,
            undrain=self._undrain,
            measure=lambda: None,
        )
        self.orders.start()

    def _send(self, mac: str, address: str | None, port: int) -> list[str]:
        self.sent.append((mac, address, port))
        return ["192.168.1.255"]

    def _drain(self) -> None:
        self.drained += 1

    def _undrain(self) -> None:
        self.undrained += 1

    def say(self, path: topics.TopicPath, payload: bytes, **ids: str) -> None:
        self.link.deliver(path.at("home", **ids), payload)

    def after(self, seconds: float, *, busy: bool = False) -> bool:
        self.now += seconds
        self.orders.look(busy=busy)
        return self.orders.wants_sleep


def test_an_order_to_wake_is_followed_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    order = WakeOrder(node="attic", wake=MAC, wake_address="192.168.1.255", wake_port=7).encode()
    for wait in (0.0, 0.25, 0.3):
        node.now += wait
        node.say(topics.WAKE, order, helper="desktop")
    node.say(topics.WAKE, WakeOrder(node="cellar", wake="00:00:00:00:00:01").encode(), helper="desktop")
    assert node.sent == [
        (MAC, "192.168.1.255", 7),
        (MAC, "192.168.1.255", 7),
        ("00:00:00:00:00:01", None, 9),
    ]


def test_a_node_sleeps_after_its_idle_time_and_only_if_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, sleep_command="true")
    assert not node.after(1e6), "no idle time is set"
    node.say(topics.NODE_SETTINGS, NodeSettings(idle_minutes=2.0).encode(), node="desktop")
    assert not node.after(1.0, busy=True)
    assert not node.after(119.0)
    assert node.after(1.0)
    without = Node(monkeypatch)
    without.say(topics.NODE_SETTINGS, NodeSettings(idle_minutes=2.0).encode(), node="desktop")
    assert not without.after(1e6), "it has no command"


def test_an_idle_time_that_is_taken_back_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, sleep_command="true")
    node.say(topics.NODE_SETTINGS, NodeSettings(idle_minutes=2.0).encode(), node="desktop")
    node.say(topics.NODE_SETTINGS, b"", node="desktop")
    assert not node.after(1e6)


def test_an_order_to_sleep_or_drain_is_for_the_node_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, sleep_command="true")
    for verb in ("sleep", "drain", "undrain"):
        node.say(topics.CONTROL, ControlRequest(node="attic").encode(), verb=verb)
        node.say(topics.CONTROL, ControlRequest().encode(), verb=verb)
    assert (node.orders.wants_sleep, node.drained, node.undrained) == (False, 0, 0)
    for verb in ("sleep", "drain", "undrain"):
        node.say(topics.CONTROL, ControlRequest(node="desktop").encode(), verb=verb)
    assert (node.orders.wants_sleep, node.drained, node.undrained) == (True, 1, 1)
