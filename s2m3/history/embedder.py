"""Embeds the kept pictures, so that searches find them: the newest first, a few at once."""

from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from s2m3.broker.event_loop import Loop, Timer
from s2m3.history.finder import Finder, Raw, packed, unit_vector
from s2m3.history.store import HistoryStore
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.history import HistoryWanted

__all__ = ["Embedder"]

_log = structlog.get_logger(__name__)
#: Most requests at once: searches are rare, and requests of the house come first.
_AT_ONCE = 4
#: Most pictures that wait; the oldest of more are left to a later search.
_MOST_WAITING = 2_000
#: Longest wait of a search for pictures without an embedding, seconds.
_PATIENCE_S = 5.0


class Embedder:
    """Embeds pictures of the history. Its methods are called in the loop's thread.

    Args:
        loop: The bridge's loop.
        finder: Sends requests to the site's encoders.
        store: The history; used in its thread.
        in_thread: Runs a function in the store's thread.
    """

    def __init__(
        self, loop: Loop, finder: Finder, store: HistoryStore, in_thread: Callable[[Callable[[], None]], None]
    ) -> None:
        self._loop, self._finder, self._store, self._in_thread = loop, finder, store, in_thread
        #: ids of answers, the newest first
        self._queue: deque[int] = deque(maxlen=_MOST_WAITING)
        self._under_way: set[int] = set()
        #: answers whose picture cannot be embedded, in the space of `_space`
        self._failed: set[int] = set()
        self._space = ""
        #: searches that wait until everything is embedded
        self._searches: list[tuple[Timer, Callable[[int], None]]] = []

    def add(self, entry: int) -> None:
        """Queues the picture of a new answer for embedding."""
        self._queue.appendleft(entry)
        self._go_on()

    def catch_up(self, wanted: HistoryWanted, done: Callable[[int], None]) -> None:
        """Embeds the pictures of a search that have no embedding yet.

        Args:
            wanted: The search.
            done: Called when all of them have one, or after 5 s, with the number of those that still have none.
        """
        if self._space != self._finder.space:
            self._space, self._failed = self._finder.space, set()
        self._in_thread(partial(self._find_lacking, wanted, self._space, done))

    def _find_lacking(self, wanted: HistoryWanted, space: str, done: Callable[[int], None]) -> None:
        found = self._store.lacking(wanted, space, _MOST_WAITING)
        self._loop.call(partial(self._take, found, done))

    def _take(self, found: list[int], done: Callable[[int], None]) -> None:
        known = {*self._queue, *self._under_way, *self._failed}
        more = [entry for entry in found if entry not in known]
        self._queue.extend(more[: _MOST_WAITING - len(self._queue)])
        if not self._queue and not self._under_way:
            done(0)
            return
        timer = self._loop.after(_PATIENCE_S, lambda: self._give_up(done))
        self._searches.append((timer, done))
        self._go_on()

    def _give_up(self, done: Callable[[int], None]) -> None:
        self._searches = [one for one in self._searches if one[1] is not done]
        done(len(self._queue) + len(self._under_way))

    def _go_on(self) -> None:
        while self._queue and len(self._under_way) < _AT_ONCE:
            entry = self._queue.popleft()
            self._under_way.add(entry)
            self._in_thread(partial(self._read, entry))
        if not self._queue and not self._under_way:
            searches, self._searches = self._searches, []
            for timer, done in searches:
                timer.cancel()
                done(0)

    # ---- in the store's thread, which also reads the table of ConSE -------------------------------------------------

    def _read(self, entry: int) -> None:
        found = self._store.picture(entry)
        self._loop.call(partial(self._embed, entry, None if found is None else found[1]))

    def _keep(self, entry: int, raw: Raw) -> None:
        error = None
        try:
            self._store.embed(entry, raw.space, packed(unit_vector(raw)))
        except S2M3Error as found:
            _log.warning("picture_not_embedded", error=str(found))
            error = found
        self._loop.call(partial(self._finish, entry, error))

    # ---- in the loop ------------------------------------------------------------------------------------------------

    def _embed(self, entry: int, picture: bytes | None) -> None:
        if picture is None:  # the answer was deleted meanwhile
            self._finish(entry, None)
        else:
            self._finder.embed_picture(picture, partial(self._embedded, entry))

    def _embedded(self, entry: int, found: Raw | S2M3Error) -> None:
        if isinstance(found, S2M3Error):
            self._finish(entry, found)
        else:
            self._in_thread(partial(self._keep, entry, found))

    def _finish(self, entry: int, error: S2M3Error | None) -> None:
        self._under_way.discard(entry)
        if error is not None:
            self._failed.add(entry)
        self._go_on()
