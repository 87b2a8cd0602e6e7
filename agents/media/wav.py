"""WAV files whose header was never finished: length 0, 0xFFFFFFFF, or of the first piece that was written. Pure."""

import re
import struct

__all__ = ["finished_wav"]

#: A chunk's name is printable; what sounds like one is seldom a sample.
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_ ]{2}[A-Za-z0-9_ ]")
_MOST = 0xFFFF_FFFF
_RIFF_START, _CHUNK_START = 12, 8
#: Bytes of the lengths at the start of the chunk ds64.
_DS64 = 16


def _joined(form: bytes, samples: bytes) -> bytes:
    size = min(_MOST, 4 + 2 * _CHUNK_START + len(form) + len(samples))
    head = struct.pack("<4sI4s4sI", b"RIFF", size, b"WAVE", b"fmt ", len(form))
    return head + form + struct.pack("<4sI", b"data", min(_MOST, len(samples))) + samples


def finished_wav(data: bytes) -> bytes:
    """Returns a WAV file whose lengths are true: samples reach to the end of the file unless chunks follow them.

    A file whose header agrees with what follows is returned as it is; so is one without a format or samples.
    """
    form, at = b"", _RIFF_START
    wide = data[:4] != b"RIFF"  # RF64: the length of the samples stands in the chunk ds64
    told_wide = 0
    while at + _CHUNK_START <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += _CHUNK_START
        if name == b"ds64" and size >= _DS64:
            told_wide = struct.unpack_from("<Q", data, at + 8)[0]
        if name == b"fmt ":
            form = data[at : at + size]
        if name == b"data":
            size = told_wide if wide and size == _MOST else size
            if not form or _ends_well(data, at + size):
                return data
            return _joined(form, data[at:])
        at += size + size % 2
    return data


def _ends_well(data: bytes, at: int) -> bool:
    """Whether only whole chunks follow a place, to the end of the file; a byte of padding may stand before them."""
    return at == len(data) or any(_chunks_reach_end(data, start) for start in (at, at + 1))


def _chunks_reach_end(data: bytes, at: int) -> bool:
    while at + _CHUNK_START <= len(data) and _NAME.fullmatch(data[at : at + 4]):
        size = struct.unpack_from("<I", data, at + 4)[0]
        at += _CHUNK_START + size + size % 2
    return at in (len(data), len(data) + 1)
