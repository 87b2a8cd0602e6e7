"""Parts of checkpoints between nodes: what this node lacks is fetched before it is loaded, what it has is sent.

Everything that can go wrong here ends as a failed module with a reason, never as an agent that ends.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import structlog

from s2m3.agents.checkpoints.storage.content import WrongContentError
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import cache_folder
from s2m3.agents.parts.cache import OpenPart, PartCache
from s2m3.agents.parts.fetch import Fetch, Surroundings
from s2m3.agents.parts.holder import Holder
from s2m3.agents.parts.threads import FileThread
from s2m3.agents.presence import Presence
from s2m3.agents.registry.classes import OF_CHECKPOINTS
from s2m3.agents.registry.exported import needs_export
from s2m3.agents.runtimes.exported import ExportedParts
from s2m3.agents.runtimes.network import ONNX
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.route_subscriptions import RouteSubscriptions
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.parts import ADAPTER_FOLDER, TORCH, PartOffer, PartProgress, PartWanted, PieceRequest, part_key
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.part_pieces import decode_part_piece

__all__ = ["PartExchange", "cache_of", "with_fetched"]

_log = structlog.get_logger(__name__)
#: Parts that are fetched at the same time.
_AT_ONCE = 2
_TICK_S, _REPORT_S, _IDLE_S = 0.25, 1.0, 10.0
#: How long an agent that ends waits for pieces that are being written.
_STOP_S = 2.0


def with_fetched(sources: CheckpointSources, settings: AgentSettings) -> CheckpointSources:
    """Returns an agent's sources with its cache of parts, in which are the exported ones that came from other nodes."""
    if settings.parts_mb == 0:
        return sources
    cache = cache_of(settings)
    return replace(sources, exports=ExportedParts((*sources.exports.caches, cache)), cache=cache)


def cache_of(settings: AgentSettings) -> PartCache:
    """Returns the node's cache of parts; its bound is the setting's, or half of what is free on its disk."""
    folder = settings.parts or cache_folder().parent / "parts" / settings.node
    if settings.parts_mb is not None:
        return PartCache(folder, int(settings.parts_mb * 1e6))
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    cache = PartCache(folder, 0)
    held = sum(part.manifest.nbytes for part in cache.parts())
    cache.limit_bytes = held + shutil.disk_usage(there).free // 2
    return cache


class PartExchange:
    """Fetches and sends parts. Its state belongs to the loop's thread.

    Args:
        settings: Of the agent; with `parts_mb` 0 nothing is fetched or sent.
        link: The agent's connection.
        loop: The agent's loop.
        sources: The checkpoints on this device; among the exports are those that came from other nodes (with_fetched).
        presence: Tells the others which parts this node has.
        load: Loads a module whose files are here.
        on_failed: Called with a module whose part could not be fetched, and the reason.
        on_progress: Called with what the node reports of a module whose part is fetched.
        is_busy: Whether requests wait at this node.
        states: Subscribes to the states of the nodes that parts come from.
    """

    def __init__(
        self,
        settings: AgentSettings,
        link: Link,
        loop: Loop,
        sources: CheckpointSources,
        presence: Presence,
        *,
        load: Callable[[ModuleSpec], None],
        on_failed: Callable[[ModuleSpec, S2M3Error], None],
        on_progress: Callable[[str, m.ModuleReport], None],
        is_busy: Callable[[], bool],
        states: RouteSubscriptions,
    ) -> None:
        self._node, self._link, self._loop, self._sources = settings.node, link, loop, sources
        self._dtype = settings.dtype
        self._load, self._on_failed, self._on_progress, self._presence = load, on_failed, on_progress, presence
        self.is_on = settings.parts_mb != 0
        self.cache = cache_of(settings)
        self._holder = Holder(
            link, loop, self._node, self.cache, sources,
            may_send=presence.may_send, may_export=presence.may_export, is_busy=is_busy,
        )  # fmt: skip
        self._around = Surroundings(
            self._node,
            self.cache,
            FileThread("parts-fetch", loop),
            ask_all=self._ask_all,
            ask=self._ask,
            is_busy=is_busy,
            is_connected=lambda: link.connected,
        )
        self._states = states
        #: nodes that have offered parts while some are fetched
        self._watched: set[str] = set()
        self._queue: deque[ModuleSpec] = deque()
        self._fetches: dict[str, Fetch] = {}
        #: module -> how its part came
        self._came: dict[str, PartProgress] = {}
        #: module -> its part, which is not evicted while the module is loaded, and the nodes that sent it
        self._opened: dict[str, tuple[OpenPart, frozenset[str]]] = {}

    # ---- start and stop ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Subscribes. A login that may not do so fetches and sends nothing, and the agent goes on."""
        if not self.is_on:
            return
        listen(self._link, topics.PART_WANTED, self._holder.on_wanted, required=False)
        listen(self._link, topics.PART_REQUEST, self._holder.on_request, required=False, holder=self._node)
        listen(self._link, topics.PART_OFFER, self._on_offer, required=False, asker=self._node)
        pieces = topics.PART_PIECE.all(self._link.root, asker=self._node)
        self._link.subscribe(pieces, self._on_piece, qos=topics.PART_PIECE.qos, required=False)
        self._loop.every(_TICK_S, self._tick)
        self._loop.every(_REPORT_S, self._report)
        self._loop.every(_IDLE_S, self._holder.forget_idle)

    def stop(self) -> None:
        """Ends what is under way; the pieces that are here are kept."""
        for fetch in list(self._fetches.values()):
            fetch.cancel()
        self._holder.stop()
        self._around.files.stop(_STOP_S)

    @property
    def banned(self) -> set[tuple[str, str]]:
        """Pairs of a node and the digest of a part that is not taken from it, because what it sent was wrong."""
        return set(self._around.banned)

    def progress(self, module: str) -> PartProgress | None:
        """Returns how far the part of a module is; None if it is not fetched now."""
        fetch = self._fetches.get(module)
        return fetch.progress if fetch is not None else None

    def noted(self, module: str, report: m.ModuleReport) -> m.ModuleReport:
        """Returns the report of a module that is ready, with who was refused while its part came."""
        came = self._came.get(module)
        return report if came is None or not came.refused else report.model_copy(update={"fetched": came})

    # ---- what this node lacks ---------------------------------------------------------------------------------------

    def load(self, spec: ModuleSpec) -> None:
        """Loads a module, after its part was fetched if this node lacks it."""
        if not self._lacks(spec):
            self._load(spec)
        else:
            self._queue.append(spec)
            self._start_next()

    def _lacks(self, spec: ModuleSpec) -> bool:
        if not self.is_on:
            return False
        if needs_export(spec, self._sources):
            made = [cache for cache in self._sources.exports.caches if cache.folder != self.cache.folder]
            return ExportedParts(made).find(spec, self._dtype_of(spec)) is None
        wanted = [spec.source, *filter(None, [spec.config.get(ADAPTER)])]
        return spec.class_ in OF_CHECKPOINTS and not all(self._sources.holds(str(source)) for source in wanted)

    def _dtype_of(self, spec: ModuleSpec) -> Dtype:
        return spec.dtype or self._dtype

    def keep(self, modules: set[str]) -> None:
        """Ends what is under way for other modules than these, and allows their parts to be evicted."""
        for spec in [spec for spec in self._queue if spec.id not in modules]:
            self._queue.remove(spec)
            self._on_failed(spec, S2M3Error("the plan does not name it any more"))
        for name in [name for name in self._fetches if name not in modules]:
            fetch = self._fetches.pop(name)
            fetch.cancel()
            self._on_failed(fetch.spec, S2M3Error("the plan does not name it any more"))
        for name in [name for name in self._opened if name not in modules]:
            self._opened.pop(name)[0].close()
            self._came.pop(name, None)
        self._start_next()

    def not_loaded(self, module: str, error: S2M3Error) -> None:
        """Takes it that a module did not load. A part that is not what its senders said it is comes from others."""
        opened = self._opened.pop(module, None)
        if opened is None:
            return
        part, senders = opened
        part.close()
        if isinstance(error, WrongContentError):
            digest = part.manifest.digest
            self.cache.evict(digest)
            self._around.banned.update((sender, digest) for sender in senders)
            _log.warning("part_holder_refused", node=self._node, holder=" ".join(sorted(senders)), why=error.detail)
            self._presence.keep(self.cache)

    def _start_next(self) -> None:
        for waiting in list(self._queue):
            if len(self._fetches) >= _AT_ONCE:
                return
            spec, runtime = self._as_fetched(waiting)
            if part_key(spec, runtime) in {fetch.key for fetch in self._fetches.values()}:
                continue  # another module's part that comes already: then it is here
            self._queue.remove(waiting)
            self._fetches[spec.id] = Fetch(
                spec, (runtime,), self._around, done=self._fetched, failed=self._failed_to_fetch
            )

    def _as_fetched(self, spec: ModuleSpec) -> tuple[ModuleSpec, str]:
        """Returns a module as it asks for its part, and what is to run the part."""
        if needs_export(spec, self._sources):
            return spec.model_copy(update={"dtype": self._dtype_of(spec)}), ONNX
        return spec, TORCH

    def _fetched(self, spec: ModuleSpec, part: OpenPart) -> None:
        fetch = self._fetches.pop(spec.id)
        self._opened[spec.id] = (part, frozenset(fetch.senders))
        self._came[spec.id] = fetch.progress.model_copy(update={"nodes": []})
        self._presence.keep(self.cache)
        if part.manifest.runtime == TORCH:
            spec = _in_folder(spec, part)
        elif spec.class_ in OF_CHECKPOINTS:
            spec = spec.model_copy(update={"fingerprint": part.manifest.content})
        self._load(spec)
        self._start_next()

    def _failed_to_fetch(self, spec: ModuleSpec, error: S2M3Error) -> None:
        self._fetches.pop(spec.id, None)
        _log.warning("part_not_fetched", node=self._node, module=spec.id, error=error.detail)
        self._on_failed(spec, error)
        self._start_next()

    def _tick(self) -> None:
        now = time.monotonic()
        for fetch in list(self._fetches.values()):
            fetch.tick(now)
        if not self._fetches:
            while self._watched:
                self._states.unwatch(self._watched.pop())

    def _report(self) -> None:
        for name, fetch in self._fetches.items():
            progress = fetch.progress
            share = progress.bytes / progress.of if progress.of else 0.0
            report = m.ModuleReport(state="loading", progress=round(share, 3), fetched=progress)
            self._on_progress(name, report)

    # ---- messages ---------------------------------------------------------------------------------------------------

    def on_state(self, node: str, state: m.NodeState | None) -> None:
        """Takes a node's state: nothing comes from one that is lost or forgotten."""
        for fetch in list(self._fetches.values()) if state is None or state.state == "lost" else ():
            fetch.on_lost(node)

    def _on_offer(self, holder: str, offer: PartOffer | None) -> None:
        if offer is not None:
            if self._fetches and holder not in self._watched and holder != self._node:
                self._watched.add(holder)
                self._states.watch(holder)
            for fetch in list(self._fetches.values()):
                fetch.on_offer(holder, offer)

    def _on_piece(self, message: Message) -> None:
        ids = topics.PART_PIECE.ids(self._link.root, message.topic)
        if ids is None:
            return
        try:
            piece = decode_part_piece(message.payload)
        except S2M3Error as error:
            _log.warning("bad_document", client=self._link.client_id, topic=message.topic, error=error.detail)
            return
        for fetch in list(self._fetches.values()):
            fetch.on_piece(ids["holder"], piece)

    def _ask_all(self, wanted: PartWanted) -> None:
        self._publish(topics.PART_WANTED.at(self._link.root, asker=self._node), wanted.encode(), topics.PART_WANTED.qos)

    def _ask(self, holder: str, request: PieceRequest) -> None:
        topic = topics.PART_REQUEST.at(self._link.root, asker=self._node, holder=holder)
        self._publish(topic, request.encode(), topics.PART_REQUEST.qos)

    def _publish(self, topic: str, payload: bytes, qos: int) -> None:
        try:
            self._link.publish(Outgoing(topic, payload, qos=qos), on_refused=self._refused)
        except S2M3Error as error:  # it is asked again
            _log.warning("not_published", node=self._node, topic=topic, error=str(error))

    def _refused(self, error: S2M3Error) -> None:
        for fetch in list(self._fetches.values()):
            fetch.cancel()
            self._failed_to_fetch(fetch.spec, error)


def _in_folder(spec: ModuleSpec, part: OpenPart) -> ModuleSpec:
    """Returns a module as one of the folder that its part lies in; its content has to be what was said of it."""
    config = spec.config
    if ADAPTER in config:
        config = {**config, ADAPTER: str(part.folder.absolute() / ADAPTER_FOLDER)}
    return spec.model_copy(
        update={
            "source": str(part.folder.absolute()),
            "revision": "",
            "config": config,
            "fingerprint": spec.fingerprint or part.manifest.content,
        }
    )
