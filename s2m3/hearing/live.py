"""A transcript of a sound that is still arriving, by ordinary requests with the sound so far."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from s2m3.client import Answer, Client, Reply
from s2m3.hearing.agreement import Agreement
from s2m3.hearing.windows import Form, Window, Windows
from s2m3.schemas.errors import S2M3Error

__all__ = ["Hearing", "LiveTranscript"]

_log = structlog.get_logger(__name__)
#: Longest time between two interim requests if they fail, seconds.
_REST_MAX_S = 30.0
#: A sound that arrives in less than this part of its duration is a file, not live speech.
_SPOKEN = 0.7
#: Ended windows that wait for their transcript; with more, no further samples are taken.
_MOST_WAITING = 2


@dataclass(frozen=True, slots=True)
class Hearing:
    """The settings of a live transcript.

    Args:
        task: The task that transcribes speech.
        audio: The name of its sound input.
        streams: Whether its text is generated token by token.
        options: The generation options of each request.
        every_s: Seconds of new sound between interim requests; 0: only the request at the end.
        admit: Counts a request while it is under way; raises BusyError if there are too many.
    """

    task: str
    audio: str
    streams: bool
    options: Mapping[str, Any] | None = None
    every_s: float = 1.0
    admit: Callable[[], AbstractContextManager[None]] = nullcontext


class LiveTranscript:
    """The transcript of one sound: `write` samples as they arrive, `end` the sound, and read `pieces` meanwhile.

    While the sound arrives, interim requests ask for a transcript of the window so far, whose bytes a node gets once.
    The text on which two interim transcripts agree is shown. No interim request is sent while another is under way, nor
    for as long as the last one took: they take at most half of a node's time. A window that has ended, by its length or
    the sound's end, is requested once more, and the rest of its text is shown.

    Args:
        client: Sends the requests.
        hearing: The settings.
        form: The form of the samples.
    """

    def __init__(self, client: Client, hearing: Hearing, form: Form) -> None:
        self._client, self._hearing = client, hearing
        self._windows = Windows(form)
        self._began = asyncio.get_running_loop().time()
        self._ended_windows: deque[Window] = deque()
        self._has_ended = False
        #: set when samples have arrived, or the sound has ended
        self._changed = asyncio.Event()
        #: set when a window has ended: its interim request is not waited for
        self._is_urgent = asyncio.Event()
        #: set while more samples may be taken, and at the end
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._agreement = Agreement()
        self._looked_s = self._rest_until = self._rest_s = 0.0
        #: the answer to the last interim request of the open window, and the bytes that it covers
        self._looked: tuple[int, Answer] | None = None
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._texts: list[str] = []
        #: the language of the first window with speech
        self.language = ""
        self._running = asyncio.create_task(self._run())

    @property
    def text(self) -> str:
        """The transcript of the windows that have ended."""
        return "".join(self._texts)

    @property
    def held_bytes(self) -> int:
        """Bytes of the windows in memory."""
        return sum(len(window.samples) for window in (*self._ended_windows, self._windows.open))

    async def room(self) -> None:
        """Waits while the sound arrives faster than it is transcribed."""
        await self._has_room.wait()

    def write(self, data: bytes) -> None:
        """Adds samples."""
        if ended := self._windows.add(data):
            self._ended_windows += ended
            self._looked_s, self._looked = 0.0, None
            self._is_urgent.set()
            if len(self._ended_windows) >= _MOST_WAITING:
                self._has_room.clear()
        self._changed.set()

    def end(self) -> None:
        """Ends the sound: no more samples follow."""
        self._has_ended = True
        self._is_urgent.set()
        self._changed.set()

    async def close(self) -> None:
        """Cancels the requests under way."""
        self._running.cancel()
        with suppress(asyncio.CancelledError, S2M3Error):
            await self._running

    async def pieces(self) -> AsyncIterator[str]:
        """Yields the additions to the text shown, until the end.

        Raises:
            S2M3Error: The request for a window that has ended failed.
        """
        while (piece := await self._pieces.get()) is not None:
            yield piece
        await self._running

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_for_work()
                if self._ended_windows:
                    await self._finish(self._ended_windows[0])
                    self._ended_windows.popleft()
                    self._has_room.set()
                elif self._has_ended:
                    await self._finish(self._windows.open)
                    return
                else:
                    await self._look(self._windows.open)
        finally:
            self._has_room.set()
            self._pieces.put_nowait(None)

    async def _wait_for_work(self) -> None:
        while not (self._ended_windows or self._has_ended or self._is_look_due()):
            self._changed.clear()
            await self._changed.wait()

    def _is_look_due(self) -> bool:
        """Returns whether there is enough new sound, and the sound arrives live and not as a file."""
        every_s, now = self._hearing.every_s, asyncio.get_running_loop().time()
        is_new = every_s > 0 and self._windows.open.seconds - self._looked_s >= every_s
        is_spoken = now - self._began >= _SPOKEN * self._windows.seconds
        return is_new and is_spoken and now >= self._rest_until

    async def _look(self, window: Window) -> None:
        """Sends an interim request for the window so far, unless the window ends meanwhile."""
        loop, self._looked_s, nbytes = asyncio.get_running_loop(), window.seconds, len(window.samples)
        began = loop.time()
        self._is_urgent.clear()
        try:
            with self._hearing.admit():
                answer = await self._unless_urgent(self._ask(window), nbytes)
        except S2M3Error as error:  # interim transcripts are optional: the window is requested again at its end
            _log.debug("look_failed", task=self._hearing.task, error=str(error))
            self._rest_s = min(2 * self._rest_s + self._hearing.every_s, _REST_MAX_S)
            self._rest_until = loop.time() + self._rest_s
            return
        self._rest_s = 0.0
        self._rest_until = 2 * loop.time() - began
        if answer is not None and not self._ended_windows:
            self._looked = nbytes, answer
            self._show(self._agreement.read(_text_of(answer)))

    async def _unless_urgent(self, reply: Reply, nbytes: int) -> Answer | None:
        """Returns the answer to an interim request; None if the window has ended with more bytes than it covers."""
        urgent: asyncio.Future[Any] = asyncio.create_task(self._is_urgent.wait())
        waiting: asyncio.Future[Any] = asyncio.wrap_future(reply)
        try:
            await asyncio.wait([urgent, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and self._is_all(nbytes):
                await asyncio.wait([waiting])
            answer: Answer | None = waiting.result() if waiting.done() else None
            return answer
        finally:
            urgent.cancel()
            waiting.cancel()  # and with it the request

    def _is_all(self, nbytes: int) -> bool:
        """Returns whether the sound has ended and its open window has this many bytes."""
        return self._has_ended and not self._ended_windows and len(self._windows.open.samples) == nbytes

    def _ask(self, window: Window) -> Reply:
        inputs: dict[str, Any] = {self._hearing.audio: window.file()}
        return self._client.submit(self._hearing.task, options=self._options, **inputs)

    @property
    def _options(self) -> dict[str, Any] | None:
        return dict(self._hearing.options) if self._hearing.options else None

    async def _finish(self, window: Window) -> None:
        """Transcribes a window that has ended, and shows the rest of its text."""
        if not window.samples:
            return
        if self._looked is not None and self._is_all(self._looked[0]):
            answer = self._looked[1]
        else:
            with self._hearing.admit():
                answer = await self._heard(window)
        text = _text_of(answer)
        self._show(self._agreement.end(text))
        self.language = self.language or str(answer.outputs.get("language") or "")
        self._texts.append(self._joined(text))
        self._agreement = Agreement()

    async def _heard(self, window: Window) -> Answer:
        """Requests the transcript of a whole window, and shows its text while it is generated."""
        if not self._hearing.streams:
            answer: Answer = await asyncio.wrap_future(self._ask(window))
            return answer
        inputs: dict[str, Any] = {self._hearing.audio: window.file()}
        so_far = ""
        with self._client.stream(self._hearing.task, options=self._options, **inputs) as stream:
            async for delta in stream:
                so_far = delta.after(so_far)
                self._show(self._agreement.follow(so_far))
            return stream.result()

    def _joined(self, text: str) -> str:
        """Returns a window's text as the continuation of the earlier windows' text."""
        return f" {text}" if text and self.text else text

    def _show(self, piece: str) -> None:
        if piece:
            is_first = self._agreement.shown == piece
            self._pieces.put_nowait(self._joined(piece) if is_first else piece)


def _text_of(answer: Answer) -> str:
    return answer.value.strip() if isinstance(answer.value, str) else ""
