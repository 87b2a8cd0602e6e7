"""Boxes are drawn on the picture that was sent: by `ask --draw`, and on the bridge's picture of a task."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s2m3.cluster import Cluster
from s2m3.schemas import extras, topics
from s2m3.schemas import messages as m
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.command import s2m3_here
from tests.conftest import WAIT_S
from tests.families.conftest import checkpoint, serve
from tests.families.table import FAMILIES
from tests.system.plain import PlainCaller
from tests.system.test_bindings import V3
from tests.zoo.samples import FOLDER, sample

YOLOS = next(family for family in FAMILIES if family.name == "yolos")
PICTURE = "s2m3/v1/bridge/picture/yolos"


def changed(drawn: bytes, sent: bytes) -> Any:
    """Where two pictures of one size differ by more than a JPEG's own noise: (height, width) bool."""
    one, other = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (drawn, sent))
    assert one.shape == other.shape
    return np.abs(one - other).max(axis=-1) > 60


def test_ask_draws_the_boxes_on_the_picture_that_was_sent(site: Cluster, folder: Path, tmp_path: Path) -> None:
    serve(site, "yolos", checkpoint(folder, YOLOS))
    file = tmp_path / "cat.png"
    photo = str(FOLDER / "chelsea.jpg")
    done = s2m3_here("ask", "yolos", "--image", photo, "--draw", str(file), "--json", port=site.broker.port)
    assert done.returncode == 0, done.stderr
    boxes = json.loads(done.stdout)["answer"]
    where = changed(file.read_bytes(), sample("chelsea.jpg"))
    left, top, right, bottom = np.clip(boxes[0]["box"], 0, [*where.shape[::-1]] * 2)
    assert where[int((top + bottom) / 2), [int(left) + d for d in (0, 1)]].any()
    assert where[: max(0, int(min(box["box"][1] for box in boxes)) - 20)].sum() == 0
    plain = s2m3_here("ask", "yolos", "--image", photo, port=site.broker.port)
    assert plain.stdout.startswith(f"{boxes[0]['label']} {boxes[0]['score']:.3f} at {boxes[0]['box'][0]:.0f}, ")
    assert (right, bottom) > (left, top)


def test_the_bridges_picture_of_a_task_has_the_boxes(site: Cluster, folder: Path) -> None:
    serve(site, "yolos", checkpoint(folder, YOLOS))
    watched = (PICTURE, "s2m3/v1/bridge/answered/yolos")
    with Site(site.settings) as view, PlainCaller(site.broker.port_v3, V3, watched) as caller:
        view.publish(topics.TASK, m.TaskSpec(model="yolos").encode(), task="yolos")
        site.start_bridge()
        binding = Binding(source="cam/+", task="yolos", input="image", publish="home/{1}/seen")
        view.publish(topics.BIND, binding.encode(), binding="cam")
        assert view.wait(lambda seen: "cam" in seen.reports, WAIT_S), site.log("bridge")
        caller.send("cam/front", sample("chelsea.jpg"))
        told = {message.topic: bytes(message.payload) for message in (caller.message(), caller.message())}
    answered = json.loads(told[watched[1]])
    assert answered["state"].split(", ")[0].endswith(answered["answer"][0]["label"])
    assert changed(told[PICTURE], sample("chelsea.jpg")).any()
    assert Image.open(io.BytesIO(told[PICTURE])).format == "JPEG"


def test_what_cannot_be_drawn_is_said_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = str(FOLDER / "chelsea.jpg")
    wrong = {
        ("--image", photo, "--draw", "cat.txt"): "--draw writes .jpg, .jpeg, .png, .webp, not cat.txt",
        ("--draw", "cat.png"): "--draw takes one picture (--image), not 0",
        ("--image", photo, "--image", photo, "--draw", "cat.png"): "--draw takes one picture (--image), not 2",
    }
    for words, why in wrong.items():
        done = s2m3_here("ask", "yolos", *words, "--port", "1")
        assert (done.returncode, done.stderr.strip()) == (2, f"s2m3: bad_input: {why}")
    monkeypatch.setattr(extras, "missing", lambda extra: ["PIL"] if extra == "draw" else [])
    done = s2m3_here("ask", "yolos", "--image", photo, "--draw", str(tmp_path / "cat.png"), "--port", "1")
    assert "--draw needs PIL" in done.stderr
    assert "s2m3[draw]" in done.stderr
