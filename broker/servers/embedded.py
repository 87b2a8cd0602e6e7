"""The embedded broker's process: rumqttd (from the iotcore wheel) on loopback, with size limits and TCP_NODELAY."""

import argparse
import os
import socket
import sys
import threading
import time
from pathlib import Path

from s2m3.broker.servers.websocket import PASSWORD_VARIABLE, PageDoor

__all__ = ["main", "serve"]

_LISTEN_S = 10.0

# rumqttd keeps messages, delivered or not, in a log per topic filter of at most max_segment_count segments: here 12 to
# 16 MB, or the last four messages if these are larger. Its memory grows to that size for each filter in use.
_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = {segment}
max_segment_count = 4

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
    [v5.1.connections]
    connection_timeout_ms = 10000
    max_payload_size = {max_bytes}
    max_inflight_count = 200
    dynamic_filters = true

[v4.1]
name = "v4"
listen = "127.0.0.1:{port_v3}"
next_connection_delay_ms = 1
    [v4.1.connections]
    connection_timeout_ms = 10000
    max_payload_size = {max_bytes}
    max_inflight_count = 200
    dynamic_filters = true
"""
_SEGMENT = 4 * 1024 * 1024


def serve(port: int, port_v3: int, max_bytes: int, folder: Path, page: PageDoor | None = None) -> None:
    """Runs the broker in this process; does not return.

    Args:
        port: Port for MQTT v5 clients.
        port_v3: Port for MQTT 3.1.1 clients; clients of both ports receive each other's messages.
        max_bytes: Largest packet, bytes.
        folder: Folder for the configuration file; the caller removes it.
        page: A WebSocket listener for the page, on loopback and with a login; None for none.
    """
    from iotcore.iotcore import IotCoreBroker  # noqa: PLC0415  # an optional extra that only this command needs

    text = _CONFIG.format(port=port, port_v3=port_v3, max_bytes=max_bytes, segment=_SEGMENT)
    if page is not None:
        text += page.embedded(max_bytes)
    config = folder / "rumqttd.toml"
    config.touch(mode=0o600)  # it may hold the page's password
    config.write_text(text)
    native = IotCoreBroker(config_path=str(config))
    ports = (port, port_v3, page.port) if page else (port, port_v3)
    threading.Thread(target=_without_delay, args=ports, daemon=True).start()
    native.run_forever()


def _without_delay(*ports: int) -> None:
    """Sets TCP_NODELAY on this process's listening sockets: on Linux, accepted sockets inherit it.

    rumqttd has no option for it. The sockets are found in /proc/self/fd once rumqttd listens.
    """
    missing = set(ports)
    deadline = time.monotonic() + _LISTEN_S
    while missing and time.monotonic() < deadline:
        missing -= {port for port in map(_set_no_delay, Path("/proc/self/fd").iterdir()) if port is not None}
        time.sleep(0.01)
    if missing:
        sys.stderr.write(f"TCP_NODELAY could not be set for ports {sorted(missing)}: expect 40 ms more per message\n")


def _set_no_delay(fd: Path) -> int | None:
    """Sets TCP_NODELAY if the file descriptor is a listening TCP socket; returns its port, else None."""
    try:
        copy = os.dup(int(fd.name))
    except OSError:
        return None
    try:
        with socket.socket(fileno=copy) as sock:
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            port: int = sock.getsockname()[1]
            return port
    except OSError:  # not a socket, so the duplicate is still open
        try:
            os.close(copy)
        except OSError:
            return None
        return None


def main() -> None:
    """Entry point of `python -m s2m3.broker.servers.embedded`."""
    parser = argparse.ArgumentParser(description="The embedded broker, on this machine only.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--port-v3", type=int, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port-ws", type=int, help=f"for the page; its password is in {PASSWORD_VARIABLE}")
    given = parser.parse_args()
    page = PageDoor(given.port_ws, password=os.environ[PASSWORD_VARIABLE]) if given.port_ws else None
    serve(given.port, given.port_v3, given.max_bytes, given.folder, page)


if __name__ == "__main__":
    main()
