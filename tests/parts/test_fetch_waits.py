"""How long a fetch waits: for pieces a minute; for its own disk, which reads a large part in one go, a quarter-hour."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from s2m3.agents.parts.cache import OpenPart, PartCache
from s2m3.agents.parts.fetch import Fetch, Surroundings
from s2m3.agents.parts.hashing import describe_file
from s2m3.agents.parts.threads import FileThread
from s2m3.broker.event_loop import Loop
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.parts import PartManifest, PartOffer, PieceRequest, part_key
from s2m3.schemas.wire.part_pieces import PartPiece
from tests.conftest import WAIT_S
from tests.parts.node import spec_of

SPEC = spec_of("/somewhere/clip")
DATA = b"{}"


class Waiting:
    """A fetch of a part of one piece that a holder has offered."""

    def __init__(self, folder: Path, loop: Loop) -> None:
        file, _ = describe_file("config.json", [DATA])
        self.manifest = PartManifest(content="c" * 64, runtime="torch", dtype="", files=[file])
        self.ended, self.asked = Queue[S2M3Error | None](), Queue[PieceRequest]()
        self._loop, self.files = loop, FileThread("files", loop)
        around = Surroundings(
            "pi", PartCache(folder, 1_000_000), self.files,
            ask_all=lambda _: None, ask=lambda _, request: self.asked.put(request),
            is_busy=lambda: False, is_connected=lambda: True,
        )  # fmt: skip
        made = Queue[Fetch]()
        loop.call(lambda: made.put(Fetch(SPEC, ("torch",), around, done=self._done, failed=self._failed)))
        self.fetch = made.get(timeout=WAIT_S)
        self._wait_for_files()
        offer = PartOffer(key=part_key(SPEC), manifest=self.manifest, original=True)
        self._do(lambda: self.fetch.on_offer("laptop", offer))
        assert self.asked.get(timeout=WAIT_S).part == self.manifest.digest

    def _done(self, _: ModuleSpec, part: OpenPart) -> None:
        part.close()
        self.ended.put(None)

    def _failed(self, _: ModuleSpec, error: S2M3Error) -> None:
        self.ended.put(error)

    def _do(self, call: Callable[[], None]) -> None:
        done = threading.Event()
        self._loop.call(call)
        self._loop.call(done.set)
        assert done.wait(WAIT_S)

    def _wait_for_files(self) -> None:
        done = threading.Event()
        self.files.do(lambda: None, lambda _: done.set(), lambda _: done.set())
        assert done.wait(WAIT_S)

    def come(self) -> None:
        piece = PartPiece(part=self.manifest.digest, file=0, piece=0, data=DATA)
        self._do(lambda: self.fetch.on_piece("laptop", piece))

    def pass_s(self, seconds: float) -> None:
        """Has the fetch look at the time as if so many seconds had passed."""
        self._do(lambda: self.fetch.tick(time.monotonic() + seconds))


@pytest.fixture
def waiting(tmp_path: Path, loop: Loop) -> Iterator[Waiting]:
    made = Waiting(tmp_path / "parts", loop)
    yield made
    made.files.stop()


def test_without_a_piece_for_a_minute_it_fails(waiting: Waiting) -> None:
    waiting.pass_s(40.0)
    assert waiting.ended.empty()
    waiting.pass_s(70.0)
    assert "nothing came for 60 s" in str(waiting.ended.get(timeout=WAIT_S))


def test_a_slow_disk_is_waited_for_as_long_as_it_has_work(waiting: Waiting) -> None:
    is_free = threading.Event()
    waiting.files.do(lambda: is_free.wait(WAIT_S), lambda _: None, lambda _: None)
    waiting.come()
    waiting.pass_s(800.0)
    assert waiting.ended.empty()
    is_free.set()
    assert waiting.ended.get(timeout=WAIT_S) is None


def test_a_disk_that_hangs_is_given_up(waiting: Waiting) -> None:
    is_free = threading.Event()
    waiting.files.do(lambda: is_free.wait(WAIT_S), lambda _: None, lambda _: None)
    waiting.come()
    waiting.pass_s(1000.0)
    assert "this device's disk took 900 s" in str(waiting.ended.get(timeout=WAIT_S))
    is_free.set()
