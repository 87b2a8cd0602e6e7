"""A TCP proxy between one party and the broker that can delay, throttle, cut, half-open and corrupt what passes."""

import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

_CHUNK = 65_536
_LOOK_S = 0.05
_REACH_S = 5.0


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with the cable now. None of it: it carries all that comes, at once."""

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    #: sockets stay open and new ones are accepted, but nothing passes: as when the cable is pulled
    half_open: bool = False
    #: how likely each piece that passes has one of its bits flipped
    corrupt: float = 0.0
    #: what is connected was cut, and nobody gets in
    down: bool = False


class Proxy:
    """Listens on a port of its own and passes every connection on to the broker's.

    Args:
        port: Of the broker, on 127.0.0.1.
        seed: Of what chance decides: which bits are flipped.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._broker = ("127.0.0.1", port)
        self._rng = random.Random(seed)  # noqa: S311  # a fault that can be replayed
        self._lock = threading.Condition()
        self._faults = Faults()
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.corrupted = 0
        #: how many came while it was cut
        self.refused = 0
        self._thread = self._accepting()

    # ---- faults ---------------------------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Every piece arrives this much later."""
        self._set(Faults(delay_s=seconds))

    def throttle(self, bytes_per_s: float) -> None:
        """No more passes in either direction."""
        self._set(Faults(bytes_per_s=bytes_per_s))

    def half_open(self) -> None:
        """Nothing passes any more and nobody is told."""
        self._set(Faults(half_open=True))

    def corrupt(self, probability: float) -> None:
        """Flips a bit of some of the pieces that pass."""
        self._set(Faults(corrupt=probability))

    def cut(self) -> None:
        """Resets what is connected, and hangs up on whoever comes."""
        self._set(Faults(down=True))
        self.drop()

    def drop(self) -> None:
        """Resets what is connected; whoever comes again is let in."""
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            _reset(sock)

    def refuse(self) -> None:
        """Resets what is connected, and listens no more, as where the broker's machine is off."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_REACH_S)
        self.drop()

    def mend(self) -> None:
        """The cable is whole again: what was held back passes."""
        if not self._thread.is_alive():
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._thread = self._accepting()
            self._thread.start()
        self._set(Faults())

    def _set(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults
            self._lock.notify_all()

    # ---- life -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self._thread.join(_REACH_S)

    @property
    def connections(self) -> int:
        """How many pass through it now."""
        with self._lock:
            return len(self._sockets) // 2

    def _accepting(self) -> threading.Thread:
        return threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._faults.down:
                near.close()  # as a container's port does while what is in it is away
                self.refused += 1
                continue
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._broker, _REACH_S)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._sockets |= {near, far}
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while self._pass_on(source, sink):
                continue
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> bool:
        faults = self._open()
        piece = source.recv(_CHUNK if faults.bytes_per_s is None else max(1, int(faults.bytes_per_s * _LOOK_S)))
        faults = self._open()  # what came as the cable was pulled does not pass
        if not piece or self._closed:
            return False
        if faults.delay_s:
            time.sleep(faults.delay_s)  # the fault itself
        if faults.bytes_per_s is not None:
            time.sleep(len(piece) / faults.bytes_per_s)
        with self._lock:
            if faults.corrupt and self._rng.random() < faults.corrupt:
                piece = self._flipped(piece)
        sink.sendall(piece)
        return True

    def _flipped(self, piece: bytes) -> bytes:
        self.corrupted += 1
        at = self._rng.randrange(len(piece))
        return piece[:at] + bytes([piece[at] ^ 1 << self._rng.randrange(8)]) + piece[at + 1 :]

    def _open(self) -> Faults:
        """Waits while nothing may pass."""
        with self._lock:
            self._lock.wait_for(lambda: self._closed or not self._faults.half_open)
            return self._faults


def _reset(sock: socket.socket) -> None:
    """Closes as a crash does, with a reset in place of a goodbye; the pump that reads it wakes up."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.shutdown(socket.SHUT_RDWR)
