"""The proxy itself: each fault does what it says, and is over when it is mended."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy
from tests.conftest import WAIT_S


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says what it hears."""

    def serve(conn: socket.socket) -> None:
        with conn:
            try:
                while piece := conn.recv(65_536):
                    conn.sendall(piece)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(conn,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo, seed=1) as running:
        yield running


@pytest.fixture
def cable(proxy: Proxy) -> Iterator[socket.socket]:
    with _plug_in(proxy) as sock:
        yield sock


def _plug_in(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)


def _said(sock: socket.socket, what: bytes) -> bytes:
    sock.sendall(what)
    heard = b""
    while len(heard) < len(what):
        piece = sock.recv(65_536)
        if not piece:
            raise ConnectionResetError
        heard += piece
    return heard


def test_it_passes_everything_on(cable: socket.socket) -> None:
    assert _said(cable, b"x" * 1_000_000) == b"x" * 1_000_000


def test_a_delay_delays_both_ways(proxy: Proxy, cable: socket.socket) -> None:
    _said(cable, b"x")
    proxy.delay(0.1)
    _said(cable, b"x")  # the pumps were waiting for this one before the delay began
    began = time.monotonic()
    _said(cable, b"x")
    assert time.monotonic() - began >= 0.2


def test_a_throttle_holds_the_rate(proxy: Proxy, cable: socket.socket) -> None:
    proxy.throttle(100_000)
    began = time.monotonic()
    assert _said(cable, b"x" * 120_000) == b"x" * 120_000
    assert time.monotonic() - began >= 0.5


def test_half_open_passes_nothing_and_tells_nobody_until_it_is_mended(proxy: Proxy, cable: socket.socket) -> None:
    _said(cable, b"x")
    proxy.half_open()
    cable.sendall(b"held back")
    cable.settimeout(0.2)
    with pytest.raises(TimeoutError):
        cable.recv(1)
    with _plug_in(proxy) as other:  # a new connection is accepted and hears nothing either
        other.sendall(b"x")
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.recv(1)
    proxy.mend()
    cable.settimeout(WAIT_S)
    assert cable.recv(100) == b"held back"


def test_cut_ends_what_is_connected_and_lets_nobody_in_until_it_is_mended(proxy: Proxy, cable: socket.socket) -> None:
    _said(cable, b"x")
    proxy.cut()
    with pytest.raises(OSError):  # noqa: PT011  # reset, or broken pipe
        _said(cable, b"x")
    with pytest.raises(OSError), _plug_in(proxy) as refused:  # noqa: PT011
        _said(refused, b"x")
    proxy.mend()
    with _plug_in(proxy) as again:
        assert _said(again, b"x") == b"x"


def test_drop_ends_what_is_connected_and_lets_it_return(proxy: Proxy, cable: socket.socket) -> None:
    _said(cable, b"x")
    proxy.drop()
    with pytest.raises(OSError):  # noqa: PT011
        _said(cable, b"x")
    with _plug_in(proxy) as again:
        assert _said(again, b"x") == b"x"


def test_corrupt_flips_bits_and_keeps_the_length(proxy: Proxy, cable: socket.socket) -> None:
    _said(cable, b"x")
    proxy.corrupt(1.0)
    heard = [_said(cable, b"\0" * 100) for _ in range(3)]
    assert any(piece != b"\0" * 100 for piece in heard)
    assert proxy.corrupted >= 3


def test_a_broker_that_is_not_there_is_a_closed_connection() -> None:
    with Proxy(1) as proxy, _plug_in(proxy) as sock:
        assert sock.recv(1) == b""
