"""`s2m3 calibrate` on synthetic sets and real weights: the threshold it keeps is right on pictures it has not seen."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests import command
from tests.conftest import WAIT_S
from tests.media.files import file_of
from tests.zoo.samples import sample

pytestmark = pytest.mark.short_on("mosquitto")
LABELS = ["a cat", "a space rocket"]


def cats(count: int, seed: int) -> list[bytes]:
    """Pictures of a cat, cut and lit in different ways."""
    chance = np.random.default_rng(seed)
    whole = Image.open(io.BytesIO(sample("chelsea.jpg"))).convert("RGB")
    found = []
    for _ in range(count):
        left, right, top, bottom = (int(n) for n in chance.integers(0, 25, 4))
        cut = whole.crop((left, top, whole.width - right, whole.height - bottom))
        found.append(file_of(ImageEnhance.Brightness(cut).enhance(chance.uniform(0.8, 1.2)), "JPEG"))
    return found


def nothing(count: int, seed: int) -> list[bytes]:
    """Black and grey frames, gravel of several sizes, and plain gradients."""
    chance = np.random.default_rng(seed)
    found = []
    for number in range(count):
        match number % 3:
            case 0:
                pixels = np.full((120, 160, 3), chance.integers(0, 60), np.uint8)
            case 1:
                coarse = chance.integers(60, 190, (120 // 4, 160 // 4, 1), np.uint8).repeat(3, 2)
                pixels = coarse.repeat(4, 0).repeat(4, 1)
            case _:
                pixels = np.linspace(0, chance.integers(100, 255), 160).astype(np.uint8)[None, :, None]
                pixels = pixels.repeat(120, 0).repeat(3, 2)
        found.append(file_of(Image.fromarray(pixels), "PNG"))
    return found


def folder(path: Path, pictures: list[bytes]) -> Path:
    path.mkdir()
    for number, picture in enumerate(pictures):
        (path / f"{number:02}.img").write_bytes(picture)
    return path


@pytest.fixture
def porch(zoo_cluster: Cluster) -> Iterator[Site]:
    """The task `veranda` over modules that are there already."""
    with Site(zoo_cluster.settings) as site:
        add_task(site, "veranda", m.TaskSpec(model="retrieval", inputs={"text": LABELS}, deadline_s=WAIT_S))
        assert site.wait(lambda s: s.ready("veranda"), WAIT_S)
        yield site
        site.publish(topics.TASK, b"", task="veranda")


def test_20_the_threshold_that_is_kept_is_right_on_pictures_it_has_not_seen(
    porch: Site, zoo_cluster: Cluster, zoo_client: Client, tmp_path: Path
) -> None:
    black = file_of(Image.new("RGB", (320, 240)), "PNG")
    assert zoo_client.ask("veranda", image=black).value in LABELS, "the fault: a black frame is something"
    given = [
        "--folder",
        str(folder(tmp_path / "cat", cats(9, 1))),
        "--folder",
        str(folder(tmp_path / "day", nothing(9, 2))),
    ]
    done = command.s2m3_here("calibrate", "veranda", *given, "--json", port=zoo_cluster.settings.port)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["kept"], found["folders"]) == (True, {"cat": "a cat", "day": None})
    assert (found["held_back"]["none"], found["held_back"]["labelled"]) == (3, 3)
    assert porch.wait(lambda s: s.tasks["veranda"].threshold == found["threshold"], WAIT_S)
    new_cats = [zoo_client.ask("veranda", image=picture) for picture in cats(6, 3)]
    others = [zoo_client.ask("veranda", image=picture) for picture in (black, *nothing(6, 4))]
    wrong = sum(answer.value != "a cat" for answer in new_cats) + sum(answer.value is not None for answer in others)
    assert wrong <= 1, (found, [a.outputs["score"] for a in new_cats], [a.outputs["score"] for a in others])
    assert all(answer.outputs["ranking"][0]["score"] == answer.outputs["score"] for answer in others)


def test_20_pictures_that_the_scores_do_not_tell_apart_leave_the_task_as_it_is(
    porch: Site, zoo_cluster: Cluster, tmp_path: Path
) -> None:
    given = [
        "--folder",
        str(folder(tmp_path / "a-cat", cats(9, 1))),
        "--folder",
        str(folder(tmp_path / "day", cats(9, 1))),
    ]
    done = command.s2m3_here("calibrate", "veranda", *given, port=zoo_cluster.settings.port)
    assert done.returncode == 2
    assert "cannot tell these apart by its scores" in done.stderr
    assert porch.tasks["veranda"].threshold is None


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"cat": 6}, "0 examples of none of these"),
        ({"day": 6}, "no folder is named as a label of the task; labels are"),
    ],
)
def test_folders_without_which_nothing_can_be_told_are_said(
    porch: Site, zoo_cluster: Cluster, tmp_path: Path, folders: dict[str, int], said: str
) -> None:
    given = [word for name, n in folders.items() for word in ("--folder", str(folder(tmp_path / name, cats(n, 1))))]
    done = command.s2m3_here("calibrate", "veranda", *given, port=zoo_cluster.settings.port)
    assert done.returncode == 2
    assert said in done.stderr
    assert porch.tasks["veranda"].threshold is None
