"""The history on a broker: answers are told and found, task by task, pictures come on request, an order deletes all."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from PIL import Image

from s2m3.bindings.bound_topic import Asked
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.servers.launch import Broker
from s2m3.history.entries import AnswerRecord
from s2m3.history.finder import Finder, Raw, Vector
from s2m3.history.service import History
from s2m3.schemas.bridge import BridgeAnswer
from s2m3.schemas.errors import ModuleFailedError, S2M3Error
from s2m3.schemas.settings import BridgeSettings, BrokerSettings
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller

NOW = "2026-01-02T03:04:05.678+00:00"
Start = Callable[..., History]


@pytest.fixture
def start(settings: BrokerSettings, loop: Loop) -> Iterator[Start]:
    """Starts a history on the test's topics."""
    running: list[tuple[History, Link]] = []

    def start_(**given: Any) -> History:
        finder = given.pop("finder", None)
        own = BridgeSettings(port=settings.port, root=settings.root, **given)
        link = Link(own, f"history-{len(running)}", loop)
        finder = finder or Finder(Dispatcher(link, loop, "bridge"))
        history = History(link, loop, own, finder)
        history.start()
        link.start()
        running.append((history, link))
        return history

    yield start_
    for history, link in running:
        history.stop()
        link.stop()


@pytest.fixture
def caller(shared_broker: Broker, settings: BrokerSettings) -> Iterator[PlainCaller]:
    """A page: MQTT 3.1.1, and all that it subscribes to."""
    filters = ("new/+", "kept/page/+", "picture/page/+/+", "done/page", "state")
    wanted = (*(f"{settings.root}/history/{one}" for one in filters), f"{settings.root}/control/+/response")
    with PlainCaller(shared_broker.port_v3, paho.MQTTv311, wanted) as running:
        yield running


def _picture(size: tuple[int, int] = (1_600, 1_200)) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(file, "JPEG", quality=95)
    return file.getvalue()


def _told(task: str = "porch", state: str = "a cat", **more: Any) -> AnswerRecord:
    answer = BridgeAnswer(event_type="answered", state=state, at=NOW, source="binding:porch", topic="cam/porch")
    return AnswerRecord(
        Asked(task, "binding:porch", topic="cam/porch", picture=more.pop("picture", None)), answer, **more
    )


def _until(caller: PlainCaller, kind: str) -> dict[str, list[bytes]]:
    """What comes up to the first message of a kind of topic: level after `history` -> payloads."""
    found: dict[str, list[bytes]] = {}
    while kind not in found:
        message = caller.message()
        level = message.topic.split("/history/")[-1].split("/")[0]
        if "/control/" in message.topic:
            level = "control"
        found.setdefault(level, []).append(bytes(message.payload))
    return found


def test_an_answer_is_told_at_once_and_found_with_its_small_picture(
    start: Start, caller: PlainCaller, loop: Loop, settings: BrokerSettings
) -> None:
    history, picture = start(), _picture()
    box = {"label": "cat", "score": 0.91234, "box": [160, 120, 1_600, 600]}
    told = _told(picture=picture, inputs={"image": picture, "text": ["a cat", "a dog"]}, boxes=[box], model="m")
    loop.call(partial(history.record, told))
    new = json.loads(_until(caller, "new")["new"][0])
    assert new["answer"]["state"] == "a cat"
    assert new["asked"] == {"text": "a cat, a dog"}
    assert new["boxes"] == [{"label": "cat", "score": 0.9123, "left": 0.1, "top": 0.1, "right": 1.0, "bottom": 0.5}]
    caller.send(
        f"{settings.root}/history/wanted/page", json.dumps({"transaction": "t", "pictures": [new["id"]]}).encode()
    )
    found = _until(caller, "done")
    assert json.loads(found["kept"][0]) == {"transaction": "t", "entries": [new]}
    assert json.loads(found["done"][0]) == {"transaction": "t", "more": False}
    (file,) = found["picture"]
    assert len(file) < 60_000
    assert Image.open(io.BytesIO(file)).size == (800, 600)


def test_each_task_is_answered_on_a_topic_of_its_own_and_no_message_is_large(
    start: Start, caller: PlainCaller, loop: Loop, settings: BrokerSettings
) -> None:
    history = start()
    small = [_told(task=f"task-{number % 2}", inputs={"text": "x" * 400}) for number in range(20)]
    large = [_told(task="large", inputs={str(name): "y" * 499 for name in range(16)})] * 10
    for told in small + large:
        loop.call(partial(history.record, told))
        _until(caller, "new")
    caller.send(f"{settings.root}/history/wanted/page", b"{}")
    messages = []
    while not (message := caller.message()).topic.endswith("done/page"):
        messages.append(message)
    kept = [message for message in messages if "/kept/page/" in message.topic]
    assert {message.topic.split("/")[-1] for message in kept} == {"task-0", "task-1", "large"}
    for message in kept:
        assert {entry["task"] for entry in json.loads(message.payload)["entries"]} == {message.topic.split("/")[-1]}
        assert len(message.payload) < 60_000
    assert sum(len(json.loads(message.payload)["entries"]) for message in kept) == 30


def test_without_a_file_nothing_is_written(
    start: Start, caller: PlainCaller, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    history = start()
    loop.call(partial(history.record, _told(picture=_picture((64, 64)))))
    _until(caller, "new")
    loop.call(history.publish_state)
    state = json.loads(_until(caller, "state")["state"][-1])
    assert (state["kept"], state["limit_s"]) == ("memory", 600.0)
    assert list(tmp_path.iterdir()) == []


def test_an_order_deletes_everything_and_the_file_holds_nothing_of_it(
    start: Start, caller: PlainCaller, loop: Loop, settings: BrokerSettings, tmp_path: Path
) -> None:
    history = start(history=tmp_path / "history.db")
    loop.call(partial(history.record, _told(state="nobody must read this", picture=_picture((64, 64)))))
    _until(caller, "new")
    caller.send(f"{settings.root}/control/clear-history", b'{"transaction": 7}')
    response = json.loads(_until(caller, "control")["control"][0])
    assert response == {"status": "ok", "data": {"deleted": 1}, "transaction": 7}
    assert b"nobody" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    caller.send(f"{settings.root}/history/wanted/page", b"{}")
    assert "kept" not in _until(caller, "done")


def test_where_pictures_are_off_the_history_has_none(start: Start, caller: PlainCaller, loop: Loop) -> None:
    history = start(pictures="off")
    loop.call(partial(history.record, _told(picture=_picture((64, 64)))))
    assert json.loads(_until(caller, "new")["new"][0])["picture"] is False


def test_a_picture_that_cannot_be_decoded_costs_the_picture_alone(
    start: Start, caller: PlainCaller, loop: Loop
) -> None:
    history = start()
    loop.call(partial(history.record, _told(picture=b"\xff\xd8 broken")))
    new = json.loads(_until(caller, "new")["new"][0])
    assert (new["picture"], new["answer"]["state"]) == (False, "a cat")


class Encoders(Finder):
    """The encoders of a site, which answer at once: a picture's vector is its mean colour, "red" is a text's.

    Those of `broken` fail.
    """

    def __init__(self, link: Link, loop: Loop) -> None:
        super().__init__(Dispatcher(link, loop, "bridge"))
        self.pictures = 0
        self.broken = False
        self.asked = threading.Event()

    @property
    def space(self) -> str:
        return "colours"

    def embed_picture(self, picture: bytes, done: Callable[[Raw | S2M3Error], None]) -> None:
        self.pictures += 1
        self.asked.set()
        colour = np.asarray(Image.open(io.BytesIO(picture)).resize((1, 1)), dtype=np.float32)
        done(ModuleFailedError("broken") if self.broken else Raw(self.space, colour.reshape(1, -1), is_conse=False))

    def embed_text(self, text: str, done: Callable[[str, Vector | S2M3Error], None]) -> None:
        done(self.space, np.array([1, 0, 0] if text == "red" else [0, 0, 1], dtype=np.float32))


@pytest.fixture
def encoders(settings: BrokerSettings, loop: Loop) -> Iterator[Encoders]:
    link = Link(settings, "encoders", loop)
    link.start()
    yield Encoders(link, loop)
    link.stop()


def _in_colour(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "JPEG")
    return file.getvalue()


def _search(caller: PlainCaller, settings: BrokerSettings, **wanted: object) -> tuple[list[dict[str, Any]], Any]:
    caller.send(f"{settings.root}/history/wanted/page", json.dumps(wanted).encode())
    found = _until(caller, "done")
    return [entry for one in found.get("kept", []) for entry in json.loads(one)["entries"]], json.loads(
        found["done"][0]
    )


def test_pictures_are_embedded_from_the_first_search_on(
    start: Start, caller: PlainCaller, loop: Loop, settings: BrokerSettings, encoders: Encoders
) -> None:
    history = start(finder=encoders)
    for state, colour in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
        loop.call(partial(history.record, _told(state=state, picture=_in_colour(colour))))
        _until(caller, "new")
    assert encoders.pictures == 0, "a house that never searches pays nothing"
    found, done = _search(caller, settings, text="red")
    assert [entry["answer"]["state"] for entry in found] == ["red", "blue"]
    assert (done["missing"], encoders.pictures) == (0, 2)
    loop.call(partial(history.record, _told(state="pink", picture=_in_colour((250, 60, 60)))))
    pink = json.loads(_until(caller, "new")["new"][0])["id"]
    found, _ = _search(caller, settings, like=pink)
    assert [entry["answer"]["state"] for entry in found] == ["pink", "red", "blue"]
    assert encoders.pictures == 3, "each picture once"


def test_a_history_on_disk_embeds_pictures_as_they_come(
    start: Start, caller: PlainCaller, loop: Loop, encoders: Encoders, tmp_path: Path
) -> None:
    history = start(finder=encoders, history=tmp_path / "history.db")
    loop.call(partial(history.record, _told(picture=_in_colour((250, 0, 0)))))
    _until(caller, "new")
    assert encoders.asked.wait(WAIT_S)


def test_a_picture_that_cannot_be_embedded_is_passed_over_and_not_tried_at_each_search(
    start: Start, caller: PlainCaller, loop: Loop, settings: BrokerSettings, encoders: Encoders
) -> None:
    history = start(finder=encoders)
    encoders.broken = True
    loop.call(partial(history.record, _told(picture=_in_colour((250, 0, 0)))))
    _until(caller, "new")
    for _ in range(2):
        assert _search(caller, settings, text="red") == ([], {"transaction": "", "more": False, "missing": 0})
    assert encoders.pictures == 1


def test_with_a_key_the_file_is_encrypted(
    start: Start, caller: PlainCaller, loop: Loop, settings: BrokerSettings, tmp_path: Path
) -> None:
    history = start(history=tmp_path / "history.db", history_key=tmp_path / "key")
    loop.call(partial(history.record, _told(state="nobody must read this")))
    _until(caller, "new")
    assert b"nobody" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    found, _ = _search(caller, settings, words="nobody must")
    assert [entry["answer"]["state"] for entry in found] == ["nobody must read this"]
