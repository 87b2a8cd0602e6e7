"""Who reads in the log that a door is open may connect at once."""

import asyncio
import socket
from typing import Any
from unittest import mock

import pytest

from s2m3.client import Client
from s2m3.doors.http_server import HttpDoor
from s2m3.schemas.settings import DoorSettings


class Reader:
    """Connects to the door as soon as its URL is logged."""

    def __init__(self) -> None:
        self.connected: list[bool] = []

    def info(self, event: str, *, url: str, **_: Any) -> None:
        assert event == "http_door_open"
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5):
            self.connected.append(True)


def test_a_door_that_is_said_to_be_open_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    monkeypatch.setattr("s2m3.doors.http_server._log", reader)

    async def opened() -> None:
        stop = asyncio.Event()
        stop.set()
        await HttpDoor(DoorSettings(http_port=0), ollama=True, openai=True).serve(mock.create_autospec(Client), stop)

    asyncio.run(opened())
    assert reader.connected == [True]
