"""What serves the page: fixed files, a policy that forbids what the page never does, nothing for strangers."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest

from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.broker.servers.websocket import PageDoor
from s2m3.page_server import PageServer
from s2m3.schemas.errors import BadInputError
from tests.conftest import WAIT_S


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer("ws://hub:9001/", root="s2m3/v1") as running:
        yield running


def _get(
    server: PageServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port or 0, timeout=WAIT_S)
    connection.request(method, path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    return response, response.read()


def test_the_page_comes_with_a_policy_that_lets_nothing_else_run(server: PageServer) -> None:
    response, body = _get(server, "/")
    assert response.status == 200
    assert b"<script" in body
    policy = response.headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "script-src 'self'", "connect-src 'self' ws://hub:9001", "trusted-types 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/page/", "/..%2f..%2fREADME.md", "//etc/passwd", "/samples", "/x"]
)
def test_nothing_but_the_pages_files_is_served(server: PageServer, path: str) -> None:
    response, body = _get(server, path)
    assert response.status == 404
    assert b"<li>" not in body


def test_it_answers_get_and_head_only(server: PageServer) -> None:
    assert _get(server, "/", method="HEAD")[1] == b""
    assert _get(server, "/", method="POST")[0].status == 501


def test_a_strangers_name_that_points_here_is_refused(server: PageServer) -> None:
    assert _get(server, "/config.json", host="evil.example")[0].status == 421
    assert _get(server, "/config.json", host="localhost:1")[0].status == 200


def test_the_page_is_told_where_the_broker_is_and_a_login_only_where_we_started_it(server: PageServer) -> None:
    assert json.loads(_get(server, "/config.json")[1]) == {"url": "ws://hub:9001/", "root": "s2m3/v1"}
    door = PageDoor(9001)
    with PageServer(door.url, root="s2m3/v1", door=door) as own:
        assert json.loads(_get(own, "/config.json")[1])["password"] == door.password


@pytest.mark.parametrize(
    "url",
    ["http://hub:9001/", "ws://", "ws://hub:0/", "ws://hub:99999/", "ws://u:p@hub/", "ws://hub/; script-src *", "hub"],
)
def test_what_is_no_websocket_is_refused(url: str) -> None:
    with pytest.raises(BadInputError, match="not the address of a websocket"):
        PageServer(url, root="s2m3/v1")


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInputError, match=f"cannot be served on 127.0.0.1:{port}"):
            PageServer("ws://hub:9001/", root="s2m3/v1", port=port)
        done = subprocess.run(
            [sys.executable, "-m", "s2m3", "dashboard", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_websocket_listener_is_for_this_machine_only(kind: BrokerKind) -> None:
    with Broker(kind, ws_port=0) as broker:
        assert broker.page is not None
        listening = [c.laddr for c in psutil.Process(broker.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert broker.page.port in {address.port for address in listening}
        assert {address.ip for address in listening} <= {"127.0.0.1"}
