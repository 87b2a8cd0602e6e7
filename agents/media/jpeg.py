"""What the markers of a JPEG say (ITU-T T.81): its size, its scans, whether it has its end. Pure; decodes nothing."""

import re
from dataclasses import dataclass, field

from s2m3.schemas.errors import BadInputError

__all__ = ["Jpeg", "endings", "read_jpeg"]

#: Segments of one file, and scans that are counted: more of either is no camera's picture.
_MAX_SEGMENTS, _MAX_COUNTED = 20_000, 1_000
_COEFFICIENTS = 64
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
#: Frames: all of C0 to CF but the tables and the reserved one among them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
#: A marker between segments, behind whatever fill bytes.
_ANY_MARKER = re.compile(rb"\xff[^\xff]", re.DOTALL)
#: A marker within entropy-coded data: not a stuffed byte, a restart or a fill byte.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
#: Bytes that stand for scan data that may be missing, restarts among them. A picture that is whole does not depend on
#: them.
_RESTARTS = bytes(range(0xD0, 0xD8)) * 2
_TAILS = (
    b"",
    *(filler + b"".join(b"\xff%c" % kind + filler for kind in _RESTARTS) for filler in (b"\x55" * 64, b"\xaa" * 64)),
)
_END = b"\xff\xd9"


@dataclass(slots=True)
class Jpeg:
    """Facts of one JPEG."""

    width: int = 0
    height: int = 0
    progressive: bool = False
    #: SOS segments
    scans: int = 0
    #: samples per pixel, all components together: 3 without subsampling, 1.5 with that of most cameras
    samples: float = 0.0
    #: components of the picture
    components: tuple[int, ...] = ()
    #: whether there is an end marker, and where the picture's own bytes end
    ended: bool = False
    end: int = 0
    #: (component, coefficient) -> bits that no scan has brought yet
    _missing: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every coefficient of every component was in a scan, to its last bit."""
        wanted = _COEFFICIENTS if self.progressive else 1
        return bool(self.components) and all(
            self._missing.get((c, k), 1) == 0 for c in self.components for k in range(wanted)
        )

    def take_frame(self, body: bytes, kind: int) -> None:
        """Takes in a frame header (SOF)."""
        self.height, self.width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        self.progressive = kind in _PROGRESSIVE
        rows = [body[at : at + 3] for at in range(6, 6 + 3 * body[5], 3)]
        self.components = tuple(row[0] for row in rows)
        sizes = [(row[1] >> 4, row[1] & 15) for row in rows]
        largest = max(h for h, _ in sizes) * max(v for _, v in sizes)
        self.samples = sum(h * v for h, v in sizes) / max(1, largest)

    def take_scan(self, body: bytes) -> None:
        """Takes in a scan header (SOS)."""
        self.scans += 1
        count = body[0]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        for component in body[1 : 1 + 2 * count : 2]:
            for k in range(first, min(last, _COEFFICIENTS - 1) + 1):
                self._missing[component, k] = bits & 15


def read_jpeg(data: bytes) -> Jpeg:
    """Returns the facts of a JPEG; what cannot be read of a damaged one is left at its start value.

    Raises:
        BadInputError: It has more segments than any picture.
    """
    found, at = Jpeg(end=len(data)), 2
    for _ in range(_MAX_SEGMENTS):
        marker = _ANY_MARKER.search(data, at)
        if marker is None:
            return found
        at = marker.start()
        kind = data[at + 1]
        if kind == _EOI or (kind == _SOI and found.scans):  # the next picture of a stream begins: this one has no end
            found.ended, found.end = kind == _EOI, at
            return found
        if kind in _ALONE or kind == 0:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4])
        _take(found, kind, data[at + 4 : at + 2 + length])
        at += 2 + length
        if kind == _SOS:
            if found.scans >= _MAX_COUNTED:
                return found
            marker = _SCAN_END.search(data, at)
            at = marker.start() if marker else len(data)
    raise BadInputError(f"the picture cannot be decoded: a JPEG of more than {_MAX_SEGMENTS:,} segments")


def _take(found: Jpeg, kind: int, body: bytes) -> None:
    try:
        if kind in _FRAMES and not found.components:
            found.take_frame(body, kind)
        elif kind == _SOS:
            found.take_scan(body)
    except (IndexError, ValueError):  # cut off or damaged: the decoder says so
        return


def endings(data: bytes, found: Jpeg) -> list[bytes]:
    """Returns a JPEG that has no end marker with three different endings.

    All of them decode to the same pixels if, and only if, none of the picture's scan data is missing: a decoder reads
    no further than the last block. Where something is missing, it is the ending that the decoder takes for it.

    Raises:
        BadInputError: Whole scans are missing.
    """
    if not found.complete:
        raise BadInputError("the picture cannot be decoded: it is truncated, scans of the JPEG are missing")
    body = data[: found.end].rstrip(b"\xff")
    bare = body.rstrip(b"\0")
    body = body[: len(bare) + 2]  # a frame buffer's own zeros would be taken for scan data
    return [body + tail + _END for tail in _TAILS]
