"""Sends parts that this node has to nodes that ask for them: slowly, and not at all while requests wait here."""

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.parts.exporting import check_room
from s2m3.agents.parts.served_part import ServedPart, of_cache, of_export, of_folder
from s2m3.agents.parts.threads import FileThread
from s2m3.agents.runtimes.network import ONNX
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.parts import TORCH, PartOffer, PartWanted, PieceRequest, part_key
from s2m3.schemas.wire.part_pieces import encode_part_piece

__all__ = ["Holder"]

_log = structlog.get_logger(__name__)
#: Parts that are ready to be sent, and for how long after the last request.
_MOST_SERVED, _SERVED_S = 8, 120.0
#: Requests for pieces that wait here, of all nodes and of one.
_MOST_WAITING, _MOST_OF_ONE = 64, 16
#: Searches for parts that wait here, and parts that wait to be hashed.
_MOST_WANTED, _MOST_HASHED = 32, 16
#: While requests wait, pieces wait; one that has waited so long is sent, so that a busy node's part arrives in the end.
_LONGEST_PAUSE_S, _LOOK_S = 1.0, 0.01
#: Copies in the cache that are offered for one module.
_MOST_OFFERS = 4
#: How long the reason counts why a part could not be exported, seconds; and its most characters.
_TRIED_AGAIN_S, _LONGEST_WHY = 600.0, 400


class Holder:
    """Answers PartWanted and PieceRequest of other nodes. Its state belongs to the loop's thread.

    Args:
        link: The agent's connection.
        loop: The agent's loop.
        node: This node.
        cache: The parts in its cache.
        sources: The checkpoints on its disk.
        may_send: Whether parts of a source are sent: those that the profile names.
        may_export: Whether a module's part is exported here for nodes without torch.
        is_busy: Whether requests wait here.
    """

    def __init__(
        self,
        link: Link,
        loop: Loop,
        node: str,
        cache: PartCache,
        sources: CheckpointSources,
        *,
        may_send: Callable[[str], bool],
        may_export: Callable[[ModuleSpec], bool],
        is_busy: Callable[[], bool],
    ) -> None:
        self._link, self._loop, self._node, self._cache = link, loop, node, cache
        self._sources = replace(sources, download=False)
        self._may_send, self._may_export, self._is_busy = may_send, may_export, is_busy
        self._pieces = FileThread("parts-send", loop)
        self._hashing = FileThread("parts-hash", loop)
        self._exporting = FileThread("parts-export", loop)
        self._served: OrderedDict[str, ServedPart] = OrderedDict()
        self._asked_at: dict[str, float] = {}
        #: key -> digest of the part in the folder that the key names
        self._original: dict[str, str] = {}
        #: key -> nodes that wait for a part that is being hashed
        self._hashed_for: dict[str, set[str]] = {}
        #: key -> why its part could not be exported, and when
        self._not_exported: dict[str, tuple[str, float]] = {}
        self._searches = 0
        self._waiting: deque[tuple[str, PieceRequest, float]] = deque()
        self._sending = self._looks_again = False

    def stop(self) -> None:
        """Ends the threads after what they do now; does not wait."""
        for thread in (self._pieces, self._hashing, self._exporting):
            thread.stop()

    # ---- who has it -------------------------------------------------------------------------------------------------

    def on_wanted(self, asker: str, wanted: PartWanted | None) -> None:
        """Looks for a part that another node lacks, and offers it."""
        if wanted is None or asker == self._node or self._searches >= _MOST_WANTED:
            return
        spec, runtime = wanted.module, wanted.runtimes[0]
        key = part_key(spec, runtime)
        self._searches += 1
        self._pieces.do(
            partial(self._cached, wanted, key), partial(self._found, asker, key), lambda _: self._found(asker, key, [])
        )
        if runtime == ONNX:
            if self._may_export(spec):
                self._offer_export(asker, wanted, key)
            return
        sources = {spec.source, *filter(None, [spec.config.get(ADAPTER)])}
        if TORCH in wanted.runtimes and all(self._may_send(str(source)) for source in sources):
            self._offer_original(asker, spec, key, self._hashing, partial(of_folder, spec, self._sources))

    def _cached(self, wanted: PartWanted, key: str) -> list[ServedPart]:
        """Opens the parts of this node's caches that fit. In the thread."""
        runtimes, content = wanted.runtimes[:1], wanted.content
        by_key = None if content is not None and runtimes == [TORCH] else key  # an export is of one configuration
        caches = {cache.folder: cache for cache in (*self._sources.exports.caches, self._cache)}
        found = [
            (cache, part)
            for cache in caches.values()
            for part in cache.find(key=by_key, content=content, runtimes=runtimes)
        ]
        opened = [cache.open(part.manifest.digest) for cache, part in found[:_MOST_OFFERS]]
        return [of_cache(part) for part in opened if part is not None]

    def _found(self, asker: str, key: str, parts: list[ServedPart]) -> None:
        self._searches -= 1
        for part in parts:
            known = self._served.get(part.manifest.digest)
            if known is not None and known.is_original:  # which knows when the checkpoint has changed
                part.close()
            else:
                self._serve(part)
            self._offer(asker, PartOffer(key=key, manifest=part.manifest))

    def _offer_export(self, asker: str, wanted: PartWanted, key: str) -> None:
        spec = wanted.module
        is_asked = wanted.exporter in (None, self._node) or key in self._hashed_for or key in self._original
        if not is_asked and wanted.exporter:
            return  # another node exports it
        why, at = self._not_exported.get(key, ("", 0.0))
        if why and time.monotonic() - at < _TRIED_AGAIN_S:
            self._offer(asker, PartOffer(key=key, refused=why))
            return
        self._not_exported.pop(key, None)
        if not is_asked:
            self._pieces.do(
                partial(check_room, spec, self._sources),
                lambda _: self._offer(asker, PartOffer(key=key, can_export=True)),
                lambda error: self._offer(asker, PartOffer(key=key, refused=error.detail[:_LONGEST_WHY])),
            )
            return
        make = partial(of_export, spec, self._sources, self._cache)
        self._offer_original(asker, spec, key, self._exporting, make)

    def _offer_original(
        self, asker: str, spec: ModuleSpec, key: str, thread: FileThread, make: Callable[[], ServedPart]
    ) -> None:
        known = self._served.get(self._original.get(key, ""))
        if known is not None and known.is_original:
            self._offer(asker, PartOffer(key=key, manifest=known.manifest, original=True))
            return
        if key not in self._hashed_for and len(self._hashed_for) >= _MOST_HASHED:
            return  # the node asks again
        self._offer(asker, PartOffer(key=key, original=True))
        if key not in self._hashed_for:
            self._hashed_for[key] = {asker}
            said = "part_hashed" if thread is self._hashing else "part_is_exported"
            _log.info(said, node=self._node, source=spec.source, part=spec.prefix)
            thread.do(make, partial(self._hashed, key), partial(self._not_hashed, key, spec))
        self._hashed_for[key].add(asker)

    def _hashed(self, key: str, part: ServedPart) -> None:
        self._original = {key: digest for key, digest in self._original.items() if digest in self._served}
        self._original[key] = part.manifest.digest
        self._serve(part)
        for asker in self._hashed_for.pop(key, ()):
            self._offer(asker, PartOffer(key=key, manifest=part.manifest, original=True))

    def _not_hashed(self, key: str, spec: ModuleSpec, error: S2M3Error) -> None:
        askers = self._hashed_for.pop(key, set())
        _log.warning("part_not_offered", node=self._node, source=spec.source, part=spec.prefix, error=error.detail)
        if key == part_key(spec):
            return  # its folder may be readable again when the node asks again
        self._not_exported[key] = (error.detail[:_LONGEST_WHY], time.monotonic())
        for asker in askers:
            self._offer(asker, PartOffer(key=key, refused=self._not_exported[key][0]))

    def _offer(self, asker: str, offer: PartOffer) -> None:
        topic = topics.PART_OFFER.at(self._link.root, holder=self._node, asker=asker)
        try:
            self._link.publish(Outgoing(topic, offer.encode()), on_refused=self._refused)
        except S2M3Error as error:
            _log.warning("not_published", node=self._node, topic="part/offer", error=str(error))

    def _refused(self, error: S2M3Error) -> None:
        _log.warning("part_not_offered", node=self._node, error=error.detail)

    def _serve(self, part: ServedPart) -> None:
        digest = part.manifest.digest
        before = self._served.pop(digest, None)
        if before is not None:
            before.close()
        self._served[digest] = part
        self._asked_at[digest] = time.monotonic()
        while len(self._served) > _MOST_SERVED:
            self._drop(next(iter(self._served)))

    def _drop(self, digest: str) -> None:
        self._asked_at.pop(digest, None)
        if (part := self._served.pop(digest, None)) is not None:
            part.close()

    def forget_idle(self) -> None:
        """Closes the parts of the cache that nobody has asked for lately, so that they may be evicted."""
        now = time.monotonic()
        for digest, at in list(self._asked_at.items()):
            if now - at > _SERVED_S and self._served[digest].is_cached:
                self._drop(digest)

    # ---- pieces -----------------------------------------------------------------------------------------------------

    def on_request(self, asker: str, request: PieceRequest | None) -> None:
        """Queues a request for a piece; refuses it if too many wait."""
        if request is None:
            return
        of_one = Counter(waiting for waiting, _, _ in self._waiting)[asker]
        if request.part not in self._served:
            self._send(asker, request, b"", "gone")
        elif not self._served[request.part].has(request):
            self._send(asker, request, b"", "none")
        elif len(self._waiting) >= _MOST_WAITING or of_one >= _MOST_OF_ONE:
            self._send(asker, request, b"", "busy")
        else:
            now = time.monotonic()
            self._asked_at[request.part] = now
            self._served.move_to_end(request.part)
            self._waiting.append((asker, request, now))
            self._next()

    def _next(self) -> None:
        """Sends the next piece, unless requests wait here; then looks again a moment later."""
        self._looks_again = False
        if self._sending or not self._waiting:
            return
        asker, request, since = self._waiting[0]
        if self._is_busy() and time.monotonic() - since < _LONGEST_PAUSE_S:
            self._looks_again = True
            self._loop.after(_LOOK_S, self._look_again)
            return
        self._waiting.popleft()
        part = self._served.get(request.part)
        if part is None:
            self._send(asker, request, b"", "gone")
            self._loop.call(self._next)
            return
        self._sending = True
        self._pieces.do(
            partial(part.read, request), partial(self._read, asker, request), lambda _: self._read(asker, request, None)
        )

    def _look_again(self) -> None:
        if self._looks_again:
            self._next()

    def _read(self, asker: str, request: PieceRequest, data: bytes | None) -> None:
        self._sending = False
        if data is None:
            self._drop(request.part)  # the folder was saved anew, or is gone
            self._send(asker, request, b"", "gone")
        else:
            self._send(asker, request, data, None)
        self._next()

    def _send(self, asker: str, request: PieceRequest, data: bytes, refused: str | None) -> None:
        topic = topics.PART_PIECE.at(self._link.root, holder=self._node, asker=asker)
        try:
            self._link.publish(Outgoing(topic, encode_part_piece(request, data, refused), qos=topics.PART_PIECE.qos))
        except S2M3Error as error:  # it is asked again
            _log.warning("not_published", node=self._node, topic="part/piece", error=str(error))
