"""A sound at the Wyoming door: it is transcribed while it arrives, and the certain part of its text is sent at once."""

import asyncio
from contextlib import suppress

from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop

from s2m3.doors.wyoming_events import EventStream
from s2m3.hearing.live import LiveTranscript
from s2m3.schemas.errors import S2M3Error

__all__ = ["Utterance"]


class Utterance:
    """A sound that is arriving.

    Args:
        stream: The connection that gets the transcript.
        transcript: The transcript of the sound, from its beginning.
    """

    def __init__(self, stream: EventStream, transcript: LiveTranscript) -> None:
        self._stream, self._transcript = stream, transcript
        self.size = 0
        self._sending = asyncio.create_task(self._send_pieces())

    @property
    def held_bytes(self) -> int:
        """Bytes of the sound in memory."""
        return self._transcript.held_bytes

    async def write(self, data: bytes) -> None:
        """Adds samples, once there is room for them.

        Raises:
            S2M3Error: The earlier sound could not be transcribed.
            OSError: The connection is lost.
        """
        await self._transcript.room()
        if self._sending.done():
            self._sending.result()
        self.size += len(data)
        self._transcript.write(data)

    async def end(self) -> None:
        """Sends the whole transcript.

        Raises:
            S2M3Error: The sound could not be transcribed.
            OSError: The connection is lost.
        """
        self._transcript.end()
        await self._sending
        language = self._transcript.language or None
        await self._stream.write(Transcript(text=self._transcript.text, language=language))
        await self._stream.write(TranscriptStop())

    async def close(self) -> None:
        """Cancels the requests under way."""
        self._sending.cancel()
        with suppress(asyncio.CancelledError, S2M3Error, OSError):
            await self._sending
        await self._transcript.close()

    async def _send_pieces(self) -> None:
        await self._stream.write(TranscriptStart())
        async for piece in self._transcript.pieces():
            await self._stream.write(TranscriptChunk(text=piece))
