"""Draws an answer's boxes on its picture, in a thread of its own: the bridge's loop decodes no pictures."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError

__all__ = ["Drawing"]

_log = structlog.get_logger(__name__)
#: Pixels per side of a drawn picture: dashboards show no more.
_ENOUGH = 1_280
Boxes = Sequence[Mapping[str, Any]]


class Drawing:
    """Draws on pictures one after the other. Without Pillow (the extra `draw`) pictures are left unchanged.

    Args:
        loop: The bridge's loop.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._thread = None if extras.missing("draw") else ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._is_told = False

    def draw(self, picture: bytes, boxes: Boxes, is_current: Callable[[], bool], done: Callable[[bytes], None]) -> None:
        """Draws boxes on a picture; without boxes the picture is left unchanged.

        Args:
            picture: The picture file.
            boxes: Values of the kind `boxes`.
            is_current: Returns whether the picture is still needed; called in the thread, before decoding.
            done: Called with the new file, or the old one if nothing could be drawn; in the loop's thread.
        """
        if boxes and self._thread is None and not self._is_told:
            self._is_told = True
            _log.warning("boxes_not_drawn", because=f"Pillow is missing: {extras.hint('draw')}")
        if not boxes or self._thread is None:
            done(picture)
            return
        self._thread.submit(self._draw, picture, boxes, is_current, done)

    def _draw(
        self, picture: bytes, boxes: Boxes, is_current: Callable[[], bool], done: Callable[[bytes], None]
    ) -> None:
        from s2m3.agents.media.drawing import draw_boxes  # noqa: PLC0415  # Pillow, where there are boxes

        if not is_current():
            return
        try:
            drawn = draw_boxes(picture, boxes, need=_ENOUGH)
        except BadInputError as error:
            _log.warning("boxes_not_drawn", because=str(error))
            drawn = picture
        self._loop.call(partial(done, drawn))

    def stop(self) -> None:
        """Drops the pictures that are not drawn yet."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
