"""What is thrown at a door is refused, its memory stays flat, and it goes on answering."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from s2m3.broker.servers.launch import Broker, default_kind
from tests.doors.door import Door, opened

CONNECTIONS = 40


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    limits = {
        "S2M3_HEADER_S": "1",
        "S2M3_BODY_S": "1",
        "S2M3_MAX_CONNECTIONS": str(CONNECTIONS),
        "S2M3_MAX_BODY_MB": "4",
    }
    with Broker(default_kind()) as broker, opened(broker.port, tmp_path_factory.mktemp("door"), **limits) as running:
        yield running


@pytest.fixture(autouse=True)
def _goes_on_answering(door: Door) -> Iterator[None]:
    before = door.memory_mb()
    yield
    with urllib.request.urlopen(f"{door.url}/api/version") as answer:  # noqa: S310  # of the door
        assert json.load(answer)["version"]
    assert door.memory_mb() - before < 40


def connected(door: Door, data: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", door.port), timeout=20)
    made.sendall(data)
    return made


def read(made: socket.socket) -> bytes:
    """Returns all that comes until the door ends the connection."""
    found = b""
    try:
        while part := made.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


def post(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def status(door: Door, data: bytes) -> int:
    with connected(door, data) as made:
        return int(read(made).split(b" ", 2)[1])


def test_a_body_of_1_gb_is_refused_by_its_header(door: Door) -> None:
    assert status(door, post("/api/chat", "Content-Length: 1000000000")) == 413


def test_a_body_without_end_is_cut_off(door: Door) -> None:
    sent, block = 0, b"x" * 65_536
    with connected(door, post("/v1/chat/completions", "Transfer-Encoding: chunked")) as made:
        try:
            while sent < 1_000_000_000:
                made.sendall(b"10000\r\n" + block + b"\r\n")
                sent += len(block)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 50_000_000


@pytest.mark.parametrize("begun", [b"", b"POST /api/chat HTT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b"])
def test_half_open_connections_are_ended(door: Door, begun: bytes) -> None:
    waiting = [connected(door, begun) for _ in range(CONNECTIONS - 5)]
    assert [read(made) for made in waiting] == [b""] * len(waiting)


def test_a_slow_body_is_ended(door: Door) -> None:
    assert status(door, post("/api/chat", "Content-Length: 100") + b"{") == 408


def test_200_connections_leave_the_door_open(door: Door) -> None:
    made = [connected(door) for _ in range(200)]
    assert [read(one) for one in made] == [b""] * 200


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"GET /api/tags HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403),
        (b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n", 403),
        (b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 400),
        (b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: " + b"a" * 300_000, 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/models/%00%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"DELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (post("/api/chat", "Content-Length: 3", "Connection: close") + b"{{{", 400),
        (post("/api/chat", "Content-Length: 4000", "Connection: close") + b"[" * 4000, 400),
        (post("/v1/audio/transcriptions", "Content-Length: 2", "Connection: close") + b"ab", 400),
    ],
)
def test_what_makes_no_sense_is_refused(door: Door, data: bytes, refused: int) -> None:
    assert status(door, data) == refused
