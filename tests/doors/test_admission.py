"""Who may ask at a door: token, host, origin. And an address that others reach needs a token."""

import base64
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from s2m3.doors.admission import Admission, read_token
from s2m3.doors.http_server import HttpDoor
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.settings import DoorSettings

TOKEN = "correct-horse-battery"  # noqa: S105  # of these tests


async def _length(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def client(token: str | None = None, **settings: Any) -> TestClient:
    application = Starlette(routes=[Route("/v1/length", _length, methods=["POST"])])
    made = Admission(application, DoorSettings(**settings), token)
    return TestClient(made, base_url="http://localhost")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic !!"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()}, 200),
    ],
)
def test_a_door_with_a_token_lets_in_who_has_it(sent: dict[str, str], status: int) -> None:
    answer = client(TOKEN).post("/v1/length", headers=sent)
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 200),
        ("127.0.0.1:11434", 200),
        ("[::1]:11434", 200),
        ("192.168.1.5", 200),
        ("hub.local:80", 200),
        ("hub", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("", 403),
    ],
)
def test_a_name_that_public_dns_can_point_here_is_refused(host: str, status: int) -> None:
    assert client().post("/v1/length", headers={"host": host}).status_code == status


def test_names_and_pages_are_let_in_where_they_are_named() -> None:
    door = client(allow_hosts="door.example", allow_origins="https://chat.example")
    assert door.post("/v1/length", headers={"host": "Door.Example:443"}).status_code == 200
    assert door.post("/v1/length", headers={"origin": "https://chat.example"}).status_code == 200


@pytest.mark.parametrize(("origin", "status"), [("http://localhost", 200), ("http://evil.example", 403), ("null", 403)])
def test_a_page_of_another_origin_is_refused(origin: str, status: int) -> None:
    assert client().post("/v1/length", headers={"origin": origin}).status_code == status


def test_a_body_is_counted_whatever_its_header_says() -> None:
    door = client(max_body_mb=0.1)
    assert door.post("/v1/length", content=b"x" * 100_000).text == "100000"
    assert door.post("/v1/length", content=b"x" * 100_001).status_code == 413
    assert door.post("/v1/length", content=iter([b"x" * 60_000] * 2)).status_code == 413
    assert [door.post("/v1/length", content=b"x" * 90_000).status_code for _ in range(6)] == [200] * 6


def test_an_address_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="without a token"):
        HttpDoor(DoorSettings(bind="0.0.0.0", http_port=0), ollama=True, openai=True)  # noqa: S104
    short = tmp_path / "token"
    short.write_text("short\n")
    with pytest.raises(BadInputError, match="at least 16"):
        read_token(DoorSettings(token_file=short))
    short.write_text(f"{TOKEN}\n")
    assert read_token(DoorSettings(token_file=short)) == TOKEN
