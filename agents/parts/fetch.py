"""Fetches one part of a checkpoint from the nodes that have it. It waits as long as pieces come, and no longer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from s2m3.agents.parts.cache import CachedPart, OpenPart, PartCache
from s2m3.agents.parts.choice import HASHING_WAIT_S, Offers
from s2m3.agents.parts.download import MOST_UNDER_WAY, Ask, Download, Wanted
from s2m3.agents.parts.partial import PartialPart
from s2m3.agents.parts.threads import FileThread
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError, S2M3Error
from s2m3.schemas.parts import TORCH, PartManifest, PartOffer, PartProgress, PartWanted, PieceRequest, part_key
from s2m3.schemas.wire.part_pieces import PartPiece

__all__ = ["Fetch", "Surroundings"]

_log = structlog.get_logger(__name__)
#: Intervals of the question who has the part: while no holder is known, and while pieces come from some.
_ASK_S, _ASK_MORE_S = 3.0, 15.0
#: Without a right piece for so long, while there is a connection, the fetch fails; likewise without any offer.
_STALLED_S, _NO_OFFER_S = 60.0, 20.0
#: The same where a node has the checkpoint and can make no part of it for this node.
_REFUSED_S = 4.0
#: The longest time in which this node's disk takes, or reads, what has come.
_DISK_S = 900.0
#: Pieces under way while requests wait at this node.
_WHILE_BUSY = 2
#: How often a whole file may turn out wrong although its pieces were right: a disk that loses data.
_MOST_CHECKS = 3


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a fetch uses of its node.

    Args:
        node: The node's name.
        cache: Where the part is kept.
        files: The thread that reads and writes files.
        ask_all: Publishes the question who has a part.
        ask: Publishes a request for a piece to a holder.
        is_busy: Whether requests wait at this node.
        is_connected: Whether there is a connection to the broker.
        banned: Pairs of node and digest from which nothing is taken; shared by all fetches.
    """

    node: str
    cache: PartCache
    files: FileThread
    ask_all: Callable[[PartWanted], None]
    ask: Callable[[str, PieceRequest], None]
    is_busy: Callable[[], bool]
    is_connected: Callable[[], bool]
    banned: set[tuple[str, str]] = field(default_factory=set)


class Fetch:
    """One part on its way. All methods are called in the loop's thread; `tick` often.

    Args:
        spec: The module that lacks the part.
        runtimes: What can run the part here, in order of preference; the key is of the first.
        around: The node.
        done: Called with the opened part.
        failed: Called with the reason.
    """

    def __init__(
        self,
        spec: ModuleSpec,
        runtimes: tuple[str, ...],
        around: Surroundings,
        *,
        done: Callable[[ModuleSpec, OpenPart], None],
        failed: Callable[[ModuleSpec, S2M3Error], None],
    ) -> None:
        self.spec, self.key = spec, part_key(spec, runtimes[0])
        self._runtimes, self._around, self._done, self._failed = runtimes, around, done, failed
        self._wanted = PartWanted.of(spec, runtimes)
        self._offers: Offers | None = None
        self._download: Download | None = None
        self._partial: PartialPart | None = None
        self._began = self._ticked = time.monotonic()
        self._waited_s, self._asked_at = 0.0, float("-inf")
        self._checks = 0
        self._refused: dict[str, str] = {}
        #: the nodes that pieces came from
        self.senders: set[str] = set()
        self._is_opening = self._is_over = False
        around.files.do(self._here, self._look, self._fail)

    @property
    def progress(self) -> PartProgress:
        """How far it is."""
        if self._download is None:
            makers = self._offers.makers if self._offers is not None else []
            return PartProgress(bytes=0, of=0, nodes=makers, refused=self._refused)
        of = self._download.manifest.nbytes
        return PartProgress(bytes=self._download.bytes_here, of=of, nodes=self._download.holders, refused=self._refused)

    def _here(self) -> dict[str, PartManifest]:
        found = self._around.cache.find(key=self.key, runtimes=self._runtimes)
        if self.spec.fingerprint and self._runtimes == (TORCH,):  # an export's key names more
            found += self._around.cache.find(content=self.spec.fingerprint, runtimes=self._runtimes)
        return {part.manifest.digest: part.manifest for part in found}

    def _look(self, here: dict[str, PartManifest]) -> None:
        self._offers = Offers(self._runtimes, self.spec.fingerprint or None, here)
        self.tick(time.monotonic())

    # ---- whom to ask ------------------------------------------------------------------------------------------------

    def on_offer(self, holder: str, offer: PartOffer) -> None:
        """Takes another node's offer."""
        if self._is_over or self._offers is None or offer.key != self.key:
            return
        self._offers.add(holder, offer)
        if offer.manifest is not None and self._download is not None:
            self._add_holders()
            self._ask_pieces(time.monotonic())
        elif self._download is None:
            self._choose()

    def _choose_exporter(self, now: float) -> None:
        """Names one of the nodes that could export the part, and asks at once."""
        if self._offers is None or self._wanted.exporter is None:
            return
        chosen = self._offers.exporter(self.key, now - self._began)
        if chosen is not None and chosen != self._wanted.exporter:
            self._wanted = self._wanted.model_copy(update={"exporter": chosen})
            self._asked_at = float("-inf")

    def on_lost(self, holder: str) -> None:
        """Takes it that a node is gone."""
        if self._offers is not None:
            self._offers.gone(holder)
        if self._download is not None:
            self._download.gone(holder)

    def _choose(self) -> None:
        if self._offers is None or self._is_opening:
            return
        chosen = self._offers.choose(time.monotonic() - self._began, self._around.banned)
        if chosen is None:
            return
        self._is_opening = True
        self._around.files.do(partial(self._open, chosen), partial(self._opened, chosen), self._fail)

    def _open(self, manifest: PartManifest) -> OpenPart | PartialPart:
        """Opens the part if it is here, else the folder for its pieces. In the thread."""
        opened = self._around.cache.open(manifest.digest)
        if opened is not None:
            self._around.cache.add_keys(manifest.digest, [self.key])
            return opened
        return PartialPart(self._around.cache, manifest)

    def _opened(self, manifest: PartManifest, opened: OpenPart | PartialPart) -> None:
        self._is_opening = False
        if self._is_over:
            opened.close()
        elif isinstance(opened, OpenPart):
            self._finish(opened)
        else:
            self._partial = opened
            self._download = Download(manifest, dict(enumerate(opened.held)), opened.lists)
            self._waited_s = 0.0
            _log.info(
                "part_fetched", node=self._around.node, module=self.spec.id, part=manifest.digest[:12],
                of_mb=round(manifest.nbytes / 1e6, 1), here_mb=round(self._download.bytes_here / 1e6, 1),
            )  # fmt: skip
            self._add_holders()
            self._ask_pieces(time.monotonic())

    def _add_holders(self) -> None:
        if self._download is None or self._offers is None:
            return
        digest = self._download.manifest.digest
        for holder in sorted(self._offers.holders(digest)):
            if (holder, digest) not in self._around.banned:
                self._download.offered(holder)

    def tick(self, now: float) -> None:
        """Asks again what did not come, and fails if nothing has come for too long."""
        if self._is_over or self._offers is None:
            return
        if self._around.is_connected():
            self._waited_s += now - self._ticked
        self._ticked = now
        known = self._download is not None and bool(self._download.holders)
        if self._download is None:
            self._choose_exporter(now)
        if now - self._asked_at >= (_ASK_MORE_S if known else _ASK_S):
            self._asked_at = now
            self._around.ask_all(self._wanted)
        if self._download is None:
            self._choose()
            longest = HASHING_WAIT_S if self._offers.is_hashed else _REFUSED_S if self._offers.refusals else _NO_OFFER_S
            if self._waited_s >= longest and not self._is_opening:
                self._fail(ModuleFailedError(self._why("no node that is here offers it")))
            return
        for late in self._download.overdue(now):
            _log.info("part_piece_late", node=self._around.node, holder=late.holder, piece=late.wanted.piece)
        self._ask_pieces(now)
        is_disk = self._is_opening or self._download.is_checking  # a slow one reads a large part for minutes
        if self._waited_s >= (_DISK_S if is_disk else _STALLED_S):
            what = f"this device's disk took {_DISK_S:g} s" if is_disk else f"nothing came for {_STALLED_S:g} s"
            self._fail(ModuleFailedError(self._why(what)))

    def _why(self, what: str) -> str:
        refusals = {**self._refused, **(self._offers.refusals if self._offers is not None else {})}
        refused = "".join(f"; {node}: {why}" for node, why in refusals.items())
        return f"{self.spec.source} is not on this device, and {what}{refused}"

    # ---- pieces -----------------------------------------------------------------------------------------------------

    def _ask_pieces(self, now: float) -> None:
        if self._download is None:
            return
        if self._download.is_complete and self._partial is not None and not self._is_opening:
            self._is_opening = True
            self._around.files.do(self._partial.damaged, self._checked, self._fail)
            return
        for ask in self._download.asks(now, _WHILE_BUSY if self._around.is_busy() else MOST_UNDER_WAY):
            self._ask(ask, self._download.manifest.digest)

    def _ask(self, ask: Ask, digest: str) -> None:
        wanted = ask.wanted
        self._around.ask(
            ask.holder, PieceRequest(part=digest, file=wanted.file, piece=wanted.piece, hashes=wanted.hashes)
        )

    def on_piece(self, holder: str, piece: PartPiece) -> None:
        """Takes a holder's answer."""
        download, partial_part, now = self._download, self._partial, time.monotonic()
        if self._is_over or download is None or partial_part is None or piece.part != download.manifest.digest:
            return
        wanted = Wanted(piece.file, piece.piece, piece.hashes)
        if piece.refused is not None:
            if piece.refused == "busy":
                download.busy(holder, wanted, now)
            elif holder in download.holders:
                self.on_lost(holder)
                self._asked_at = min(self._asked_at, now - _ASK_MORE_S + _ASK_S)  # the folder may have been saved anew
        elif download.arrived(holder, wanted, now):
            self.senders.add(holder)
            if wanted.hashes:
                self._on_hashes(download, partial_part, holder, wanted, piece.data)
            else:
                self._around.files.do(
                    partial(partial_part.write, wanted, piece.data, download.hash_of(wanted)),
                    partial(self._written, wanted),
                    self._fail,
                )
        self._ask_pieces(now)

    def _on_hashes(self, download: Download, part: PartialPart, holder: str, wanted: Wanted, hashes: bytes) -> None:
        if not download.block(holder, wanted, hashes):
            self._refuse(holder, "the hashes that it sent are not those of the part")
        elif wanted.file in download.lists:
            listed = download.lists[wanted.file]
            self._around.files.do(partial(part.write_list, wanted.file, listed), lambda _: None, self._fail)

    def _written(self, wanted: Wanted, is_right: bool) -> None:  # noqa: FBT001  # what `write` returns
        if self._is_over or self._download is None:
            return
        if is_right:
            self._waited_s = 0.0
            self._download.right(wanted)
        else:
            name = self._download.manifest.files[wanted.file].name
            why = f"it sent wrong bytes: piece {wanted.piece} of {name}"
            holder = self._download.wrong(wanted, why)
            if holder is not None:
                self._refuse(holder, why)
        self._ask_pieces(time.monotonic())

    def _refuse(self, holder: str, why: str) -> None:
        """Takes nothing more of this part from a holder, and says so."""
        if self._download is None:
            return
        digest = self._download.manifest.digest
        self._download.refuse(holder, why)
        self._refused[holder] = why
        self._around.banned.add((holder, digest))
        _log.warning("part_holder_refused", node=self._around.node, holder=holder, part=digest[:12], why=why)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _checked(self, damaged: list[Wanted]) -> None:
        self._is_opening = False
        if self._is_over or self._download is None or self._partial is None:
            return
        if not damaged:
            self._is_opening = True
            self._around.files.do(partial(self._complete, self._partial), self._finish, self._fail)
            return
        self._checks += 1
        _log.warning("part_damaged", node=self._around.node, module=self.spec.id, pieces=len(damaged))
        if self._checks >= _MOST_CHECKS:
            self.distrust("its pieces are right, and the whole is not")
            return
        for wanted in damaged:
            self._download.lost(wanted)
        self._ask_pieces(time.monotonic())

    def _complete(self, partial_part: PartialPart) -> OpenPart:
        part: CachedPart = partial_part.complete([self.key])
        opened = self._around.cache.open(part.manifest.digest)
        if opened is None:
            raise ModuleFailedError(f"the part {part.manifest.digest[:12]} was removed from the cache")
        return opened

    def distrust(self, why: str) -> None:
        """Drops what came, takes nothing more of this part from those who sent it, and looks for another."""
        if self._download is None or self._partial is None:
            return
        for holder in self._download.holders:
            self._refuse(holder, why)
        self._partial.discard()
        self._download = self._partial = None
        self._began, self._waited_s, self._checks = time.monotonic(), 0.0, 0

    def _finish(self, opened: OpenPart) -> None:
        if self._is_over:
            opened.close()
            return
        self._is_over = True
        seconds = round(time.monotonic() - self._began, 2)
        _log.info("part_here", node=self._around.node, module=self.spec.id, seconds=seconds)
        self._done(self.spec, opened)

    def _fail(self, error: S2M3Error) -> None:
        if not self._is_over:
            self.cancel()
            self._failed(self.spec, error)

    def cancel(self) -> None:
        """Ends it; the pieces that are here are kept for the next time."""
        self._is_over = True
        if self._partial is not None:
            self._around.files.do(self._partial.close, lambda _: None, lambda _: None)
