"""Wake-on-LAN: magic packets over UDP broadcast (AMD, 1995), and the network that this host is on."""

import socket
from ipaddress import IPv4Network

import psutil

__all__ = ["magic_packet", "own_network", "send_magic_packet"]

_EVERYWHERE = "255.255.255.255"
#: An address for documentation (RFC 5737): a UDP socket that is connected to it has the main interface's address, and
#: no packet is sent.
_SOMEWHERE = ("192.0.2.1", 9)
_REPETITIONS = 16


def magic_packet(mac: str) -> bytes:
    """Returns the payload that wakes the machine with a MAC address: 6 bytes 0xFF, and 16 times the address."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * _REPETITIONS


def send_magic_packet(mac: str, address: str | None, port: int) -> list[str]:
    """Sends a magic packet to an address, or to the broadcast addresses of all networks that this host is on.

    Returns:
        The addresses to which it was sent.

    Raises:
        OSError: No packet could be sent.
    """
    goals = [address] if address is not None else _broadcast_addresses()
    sent: list[str] = []
    failed: OSError | None = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for goal in goals:
            try:
                sender.sendto(magic_packet(mac), (goal, port))
            except OSError as error:  # an interface that is down, or has no route
                failed = error
            else:
                sent.append(goal)
    if failed is not None and not sent:
        raise failed
    return sent


def own_network() -> str:
    """Returns the IPv4 network of the interface that leads to other networks, e.g. 192.168.1.0/24; empty if unknown."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
        except OSError:  # no route: not on a network
            return ""
        own = str(probe.getsockname()[0])
    for address, netmask, _ in _addresses():
        if address == own:
            return str(IPv4Network(f"{address}/{netmask}", strict=False))
    return ""


def _broadcast_addresses() -> list[str]:
    """Returns the broadcast address of each network that this host is on."""
    found = [broadcast for _, _, broadcast in _addresses() if broadcast is not None]
    return list(dict.fromkeys(found)) or [_EVERYWHERE]


def _addresses() -> list[tuple[str, str, str | None]]:
    """Returns address, netmask and broadcast address of each IPv4 interface but loopback."""
    return [
        (one.address, one.netmask, one.broadcast)
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET and one.netmask and not one.address.startswith("127.")
    ]
