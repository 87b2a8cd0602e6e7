"""Boxes are drawn where they are, on pictures of any size, and nowhere else."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s2m3.agents.media.drawing import FORMATS, draw_boxes
from s2m3.schemas.errors import BadInputError
from tests.media.files import file_of

GREY = (120, 120, 120)


def box(*corners: float, label: str = "cat", score: float = 0.9) -> dict[str, Any]:
    return {"label": label, "score": score, "box": list(corners)}


def sent(size: tuple[int, int] = (400, 300), form: str = "PNG", **how: Any) -> bytes:
    return file_of(Image.new("RGB", size, GREY), form, **how)


def drawn(picture: bytes, boxes: list[dict[str, Any]], **how: Any) -> Any:
    """Where a picture is no longer grey: (height, width) bool."""
    image = Image.open(io.BytesIO(draw_boxes(picture, boxes, "PNG", **how))).convert("RGB")
    return (np.asarray(image) != GREY).any(axis=-1)


def test_a_box_is_an_outline_on_its_corners_and_its_label_above() -> None:
    marks = drawn(sent(), [box(100, 150, 300, 250)])
    rows, columns = np.nonzero(marks[150:])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 100, 100, 300)
    assert not marks[160:240, 110:290].any()
    assert marks[120:150, 100:140].any()


def test_without_boxes_the_picture_stays_as_it_is() -> None:
    assert not drawn(sent(), []).any()


def test_boxes_beyond_the_edges_and_turned_corners_stay_within_the_picture() -> None:
    marks = drawn(sent(), [box(-50, -20, 900, 700), box(300, 200, 100, 100, label="dog")])
    assert marks[0].any()
    assert marks[-1].all()
    assert marks[100:200, 100].all()


def test_a_box_is_in_pixels_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    marks = drawn(sent((400, 300), exif=exif), [box(50, 200, 150, 390)])
    assert marks.shape == (400, 300)
    assert marks[250:350, 50].all()


def test_a_large_picture_comes_smaller_with_its_boxes_where_they_were() -> None:
    marks = drawn(sent((2400, 1600)), [box(1200, 800, 2000, 1200)], need=500)
    assert marks.shape[1] < 2400
    scale = marks.shape[1] / 2400
    assert marks[int(900 * scale) : int(1100 * scale), int(1200 * scale)].all()


@pytest.mark.parametrize("form", sorted(set(FORMATS.values())))
def test_every_format_is_written_and_letters_that_are_not_there_do_not_matter(form: str) -> None:
    file = draw_boxes(sent(), [box(10, 10, 90, 90, label="猫 ü\n")], form)
    assert Image.open(io.BytesIO(file)).format == form


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(BadInputError, match="not a picture"):
        draw_boxes(b"nothing", [box(1, 2, 3, 4)])
