"""The history service: keeps answers, replies to queries on `history/wanted/<asker>`, and clears all on an order.

SQLite and Pillow work in a thread of their own: the bridge's loop neither decodes nor waits for a disk.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.history.cipher import Cipher, read_key
from s2m3.history.embedder import Embedder
from s2m3.history.entries import AnswerRecord, entry_of
from s2m3.history.finder import Finder, Vector, best
from s2m3.history.pictures import small_picture
from s2m3.history.store import HistoryStore
from s2m3.schemas import history as h
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BusyError, S2M3Error
from s2m3.schemas.settings import BridgeSettings

__all__ = ["CLEAR_VERB", "History"]

_log = structlog.get_logger(__name__)
CLEAR_VERB = "clear-history"
#: Most megabytes of a history in memory, and the time that it keeps answers, seconds.
_MEMORY_MB, _MEMORY_S = 8.0, 600.0
#: Most answers and queries that wait for the thread; further answers are not kept, and further queries are refused.
_MOST_WAITING = 64
#: Most bytes of one message with answers: Mosquitto 2.0.11 delays larger ones on a websocket.
_LARGEST_MESSAGE = 48_000
_DAY_S = 86_400.0
_EXPIRE_S = 60.0


class History:
    """Keeps answers. Its methods are called in the loop's thread.

    Args:
        link: The bridge's connection.
        loop: The bridge's loop.
        settings: The file of the history, and its limits.
        finder: Embeds pictures and texts, for searches.

    Raises:
        S2M3Error: The file cannot be opened, or needs another key.
    """

    def __init__(self, link: Link, loop: Loop, settings: BridgeSettings, finder: Finder) -> None:
        self._finder = finder
        self._link = link
        self._loop = loop
        self._keeps_pictures = settings.pictures > 0
        path = settings.history
        limit_mb, limit_s = (settings.history_mb, settings.history_days * _DAY_S) if path else (_MEMORY_MB, _MEMORY_S)
        self._state = h.HistoryState(kept="disk" if path else "memory", limit_mb=limit_mb, limit_s=limit_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        #: used in the thread only
        cipher = Cipher(read_key(settings.history_key)) if path and settings.history_key else None
        self._store = self._thread.submit(HistoryStore, path, int(limit_mb * 1e6), limit_s, cipher).result()
        self._last_id = self._thread.submit(self._store.last_id).result()
        self._embedder = Embedder(loop, finder, self._store, self._always)
        #: whether pictures are embedded as they come: each costs a request that a house without searches need not pay
        self._embeds = path is not None
        self._waiting = 0
        self._stopped = False
        self._not_kept = 0
        self._is_refused = False
        self._published: h.HistoryState | None = None

    def start(self) -> None:
        """Begins to answer queries and orders."""
        # not required: an access list that an earlier release wrote may not grant them
        listen(self._link, topics.HISTORY_WANTED, self._on_wanted, required=False)
        listen(self._link, topics.CONTROL, self._on_order, required=False, verb=CLEAR_VERB)
        self._loop.every(_EXPIRE_S, self._expire)
        self._do(self._count)

    def forget_state(self) -> None:
        """Clears the retained state: queries are not answered any more."""
        self._publish(Outgoing(topics.HISTORY_STATE.at(self._link.root), b"", retain=True))

    def stop(self) -> None:
        """Writes the waiting answers, and closes the file."""
        self._stopped = True
        self._thread.submit(self._store.close)
        self._thread.shutdown()

    def look(self, routes: Mapping[str, m.RouteDoc]) -> None:
        """Takes the present routes of the site, whose encoders searches use."""
        self._finder.look(routes)
        self._state = self._state.model_copy(update={"search": self._finder.task})

    def publish_state(self, *, again: bool = True) -> None:
        """Publishes the state of the history: how much is kept, and where; without `again` only if it has changed."""
        if again or self._published != self._state:
            self._published = self._state
            self._publish(Outgoing(topics.HISTORY_STATE.at(self._link.root), self._state.encode(), retain=True))

    def record(self, record: AnswerRecord) -> None:
        """Keeps an answer, and publishes it on `history/new/<task>`."""
        self._last_id = max(self._last_id + 1, int(time.time() * 1000))
        if not self._do(partial(self._keep, self._last_id, record)):
            self._not_kept += 1
            if self._not_kept == 1:
                _log.warning("answers_not_kept", because=f"{_MOST_WAITING} wait")

    # ---- in the thread --------------------------------------------------------------------------------------------

    def _keep(self, entry_id: int, record: AnswerRecord) -> None:
        picture = small_picture(record.asked.picture) if record.asked.picture and self._keeps_pictures else None
        entry = entry_of(entry_id, record, picture)
        self._store.add(entry, None if picture is None else picture.file)
        self._count()
        self._publish_later(Outgoing(topics.HISTORY_NEW.at(self._link.root, task=entry.task), entry.encode()))
        if picture is not None and self._embeds:
            self._loop.call(partial(self._embedder.add, entry_id))

    def _count(self) -> None:
        counted = {"answers": self._store.count(), "mb": round(self._store.used_bytes() / 1e6, 1)}
        self._loop.call(partial(self._counted, counted))

    def _counted(self, counted: dict[str, float]) -> None:
        self._state = self._state.model_copy(update=counted)

    def _answer(self, asker: str, wanted: h.HistoryWanted) -> None:
        entries, more = self._store.query(wanted) if wanted.limit else ([], False)
        self._tell_found(asker, wanted, entries, more=more)

    def _answer_search(
        self, asker: str, wanted: h.HistoryWanted, space: str, vector: Vector | None, missing: int
    ) -> None:
        """Answers a search by a vector, or by an answer's picture; `missing` is the number of pictures not searched."""
        if vector is None and (kept := self._store.vector(wanted.like or 0, space)) is not None:
            vector = np.frombuffer(kept, "<f2").astype(np.float32)
        entries = [] if vector is None else best(self._store, wanted, space, vector)
        self._tell_found(asker, wanted, entries, more=False, missing=missing)

    def _tell_found(
        self,
        asker: str,
        wanted: h.HistoryWanted,
        entries: list[h.HistoryEntry],
        *,
        more: bool,
        missing: int | None = None,
    ) -> None:
        root = self._link.root
        for task, some in _in_messages(entries):
            document = h.HistoryKept(transaction=wanted.transaction, entries=some)
            self._publish_later(Outgoing(topics.HISTORY_KEPT.at(root, asker=asker, task=task), document.encode()))
        for one in wanted.pictures:
            if (found := self._store.picture(one)) is not None:
                topic = topics.HISTORY_PICTURE.at(root, asker=asker, task=found[0], entry=str(one))
                self._publish_later(Outgoing(topic, found[1]))
        done = h.HistoryDone(transaction=wanted.transaction, more=more, missing=missing)
        self._publish_later(Outgoing(topics.HISTORY_DONE.at(root, asker=asker), done.encode()))

    def _clear(self, order: m.ControlRequest) -> None:
        kept = self._store.count()
        self._store.clear()
        self._count()
        self._loop.call(self.publish_state)
        response = m.ControlResponse(status="ok", data={"deleted": kept}, transaction=order.transaction)
        self._publish_later(Outgoing(topics.CONTROL_RESPONSE.at(self._link.root, verb=CLEAR_VERB), response.encode()))
        _log.info("history_cleared", answers=kept)

    def _publish_later(self, message: Outgoing) -> None:
        self._loop.call(partial(self._publish, message))

    # ---- in the loop ----------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[], None]) -> bool:
        """Runs a function in the thread; returns False if too many wait."""
        if self._waiting >= _MOST_WAITING:
            return False
        self._always(work)
        return True

    def _always(self, work: Callable[[], None]) -> None:
        """Runs a function in the thread, without a bound: the number of these is bounded elsewhere."""
        if not self._stopped:  # an embedding may still arrive
            self._waiting += 1
            self._thread.submit(self._logged, work)

    def _logged(self, work: Callable[[], None]) -> None:
        try:
            work()
        except S2M3Error as error:
            _log.warning("history_failed", error=str(error))
        finally:
            self._loop.call(self._done)

    def _done(self) -> None:
        self._waiting -= 1

    def _expire(self) -> None:
        def expire() -> None:
            self._store.expire(int(time.time() * 1000))
            self._count()

        self._do(expire)

    def _on_wanted(self, asker: str, wanted: h.HistoryWanted | None) -> None:
        if wanted is None:
            return
        if wanted.text.strip():
            self._finder.embed_text(wanted.text, partial(self._search, asker, wanted))
        elif wanted.like is not None:
            self._search(asker, wanted, self._finder.space, None)
        else:
            self._do_or_refuse(asker, wanted, partial(self._answer, asker, wanted))

    def _search(self, asker: str, wanted: h.HistoryWanted, space: str, vector: Vector | S2M3Error | None) -> None:
        if isinstance(vector, S2M3Error):
            self._refuse(asker, wanted, vector)
            return

        def answer(missing: int) -> None:
            self._do_or_refuse(asker, wanted, partial(self._answer_search, asker, wanted, space, vector, missing))

        self._embeds = True
        self._embedder.catch_up(wanted, answer)

    def _do_or_refuse(self, asker: str, wanted: h.HistoryWanted, work: Callable[[], None]) -> None:
        if not self._do(work):
            self._refuse(asker, wanted, BusyError(f"{_MOST_WAITING} answers and queries wait"))

    def _refuse(self, asker: str, wanted: h.HistoryWanted, error: S2M3Error) -> None:
        done = h.HistoryDone(transaction=wanted.transaction, error=m.ErrorBody(**error.as_dict()))
        self._publish(Outgoing(topics.HISTORY_DONE.at(self._link.root, asker=asker), done.encode()))

    def _on_order(self, _: str, order: m.ControlRequest | None) -> None:
        if order is not None:
            self._always(partial(self._clear, order))

    def _publish(self, message: Outgoing) -> None:
        try:
            self._link.publish(message, on_refused=partial(self._refused, message.topic))
        except S2M3Error as error:
            _log.warning("not_published", topic=message.topic, error=str(error))

    def _refused(self, topic: str, error: S2M3Error) -> None:
        if not self._is_refused:  # once: an access list that an earlier release wrote refuses each of them
            _log.warning("not_published", topic=topic, error=str(error))
        self._is_refused = True


def _in_messages(entries: list[h.HistoryEntry]) -> list[tuple[str, list[h.HistoryEntry]]]:
    """Returns answers by task, in lists whose documents are small enough for one message."""
    found: list[tuple[str, list[h.HistoryEntry]]] = []
    last: dict[str, tuple[int, list[h.HistoryEntry]]] = {}
    for entry in entries:
        size = len(entry.encode())
        used, some = last.get(entry.task, (_LARGEST_MESSAGE, []))
        if used + size > _LARGEST_MESSAGE:
            used, some = 0, []
            found.append((entry.task, some))
        some.append(entry)
        last[entry.task] = (used + size, some)
    return found
