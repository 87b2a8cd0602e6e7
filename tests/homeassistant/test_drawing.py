"""Pictures get their boxes outside the bridge's loop, and stay as they are where there is no Pillow."""

import io
import queue
import threading
from collections.abc import Iterator

import pytest
from PIL import Image

from s2m3.bridge.drawing import Drawing
from s2m3.broker.event_loop import Loop
from s2m3.schemas import extras
from tests.conftest import WAIT_S
from tests.zoo.samples import sample

PICTURE = sample("chelsea.jpg")
BOXES = [{"label": "cat", "score": 0.9, "box": [10, 20, 300, 200]}]


@pytest.fixture
def drawing(loop: Loop) -> Iterator[Drawing]:
    found = Drawing(loop)
    yield found
    found.stop()


def test_boxes_are_drawn_and_handed_over_in_the_loops_thread(drawing: Drawing, loop: Loop) -> None:
    done: queue.Queue[tuple[bytes, bool]] = queue.Queue()
    drawing.draw(PICTURE, BOXES, lambda: True, lambda file: done.put((file, loop.is_current)))
    file, is_loop = done.get(timeout=WAIT_S)
    assert is_loop
    assert file != PICTURE
    assert Image.open(io.BytesIO(file)).size == Image.open(io.BytesIO(PICTURE)).size


def test_a_picture_that_was_replaced_meanwhile_is_not_drawn(drawing: Drawing) -> None:
    done: queue.Queue[bytes] = queue.Queue()
    go_on = threading.Event()
    drawing.draw(PICTURE, BOXES, lambda: not go_on.wait(WAIT_S), done.put)
    drawing.draw(PICTURE, BOXES, lambda: True, done.put)
    go_on.set()
    assert done.get(timeout=WAIT_S) != PICTURE
    assert done.empty()


@pytest.mark.parametrize("boxes", [BOXES, []])
def test_what_cannot_be_drawn_stays_as_it_was_sent(drawing: Drawing, boxes: list[dict[str, object]]) -> None:
    done: queue.Queue[bytes] = queue.Queue()
    drawing.draw(b"no picture", boxes, lambda: True, done.put)
    assert done.get(timeout=WAIT_S) == b"no picture"


def test_without_pillow_pictures_stay_as_they_are(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "missing", lambda extra: ["PIL"] if extra == "draw" else [])
    done: queue.Queue[bytes] = queue.Queue()
    drawing = Drawing(loop)
    drawing.draw(PICTURE, BOXES, lambda: True, done.put)
    drawing.draw(PICTURE, BOXES, lambda: True, done.put)
    assert [done.get_nowait(), done.get_nowait()] == [PICTURE, PICTURE]
    drawing.stop()
