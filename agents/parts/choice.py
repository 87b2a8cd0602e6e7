"""Which of the offered parts to fetch, when to stop waiting for a better offer, and who is to export one. Pure."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from s2m3.schemas.parts import PartManifest, PartOffer

__all__ = ["HASHING_WAIT_S", "Offers"]

#: How long copies wait for an offer of the checkpoint itself, which may have been saved anew, seconds.
_COPIES_WAIT_S = 1.5
#: How long nodes that could export a part have to say so, seconds: less than copies wait.
_EXPORTERS_WAIT_S = 0.5
#: How long any part waits for a checkpoint that a node hashes, and how long a part that is here already does, seconds.
HASHING_WAIT_S, _HERE_WAIT_S = 900.0, 20.0


@dataclass(slots=True)
class _Offered:
    manifest: PartManifest
    originals: set[str] = field(default_factory=set)
    copies: set[str] = field(default_factory=set)


class Offers:
    """What was offered for one module.

    Args:
        runtimes: What can run the part here, in order of preference.
        content: The fingerprint that the module names; None if it names none.
        here: Digest -> manifest of the parts in this node's own cache that have the module's key.
    """

    def __init__(
        self, runtimes: Sequence[str], content: str | None, here: Mapping[str, PartManifest] | None = None
    ) -> None:
        self._runtimes, self._content = runtimes, content
        self._here = {digest: found for digest, found in (here or {}).items() if self._fits(found)}
        self._offered: dict[str, _Offered] = {}
        self._hashing: set[str] = set()
        self._exporters: set[str] = set()
        #: holder -> why it makes no part of the checkpoint that it has
        self.refusals: dict[str, str] = {}

    def add(self, holder: str, offer: PartOffer) -> None:
        """Adds an offer; another content than the module's, or a runtime that is not here, counts nothing."""
        if offer.refused:
            self._hashing.discard(holder)
            self._exporters.discard(holder)
            self.refusals[holder] = offer.refused
            return
        self.refusals.pop(holder, None)
        if offer.can_export:
            self._exporters.add(holder)
            return
        if offer.manifest is None:
            self._hashing.add(holder)
            return
        if offer.original:
            self._hashing.discard(holder)
            for offered in self._offered.values():  # the folder was saved anew
                offered.originals.discard(holder)
        if self._fits(offer.manifest):
            found = self._offered.setdefault(offer.manifest.digest, _Offered(offer.manifest))
            (found.originals if offer.original else found.copies).add(holder)

    def gone(self, holder: str) -> None:
        """Removes all offers of a node."""
        self._hashing.discard(holder)
        self._exporters.discard(holder)
        self.refusals.pop(holder, None)
        for offered in self._offered.values():
            offered.originals.discard(holder)
            offered.copies.discard(holder)

    @property
    def is_hashed(self) -> bool:
        """Whether a node hashes or exports the checkpoint, to offer it then."""
        return bool(self._hashing)

    @property
    def makers(self) -> list[str]:
        """The nodes that hash or export the checkpoint, sorted."""
        return sorted(self._hashing)

    def holders(self, digest: str) -> set[str]:
        """Returns the nodes that offer a part."""
        found = self._offered.get(digest)
        return found.originals | found.copies if found is not None else set()

    def exporter(self, key: str, waited_s: float) -> str | None:
        """Returns the node that is to export the part; None while one does, or none can, or others may still say so.

        All who ask choose the same node, and different parts are spread over the nodes. A node that has an export comes
        first: it only has to see whether the checkpoint is still what the export was made of.

        Args:
            key: Of the part.
            waited_s: Seconds since the first question.
        """
        if self._hashing or waited_s < _EXPORTERS_WAIT_S:
            return None
        have = {holder for offered in self._offered.values() for holder in offered.originals | offered.copies}
        shares = {node: hashlib.sha256(f"{key} {node}".encode()).digest() for node in self._exporters}
        return min(shares, key=lambda node: (node not in have, shares[node]), default=None)

    def choose(self, waited_s: float, banned: Collection[tuple[str, str]] = ()) -> PartManifest | None:
        """Returns the part to take; None if there is none yet.

        The checkpoint that the module names comes before copies of it, a part that is here before one that is not, and
        then the part that most nodes have.

        Args:
            waited_s: Seconds since the first question.
            banned: Pairs of node and digest that do not count: what such a node sent was wrong.
        """
        rated = []
        for digest, offered in self._offered.items():
            originals = {holder for holder in offered.originals if (holder, digest) not in banned}
            copies = {holder for holder in offered.copies if (holder, digest) not in banned}
            if originals or copies:
                rank = self._runtimes.index(offered.manifest.runtime)
                count = len(originals | copies)
                rated.append((not originals, rank, digest not in self._here, -count, digest, offered.manifest))
        best = min(rated, default=None, key=lambda item: item[:5])
        if best is not None and not best[0]:
            return best[5]
        longest = _COPIES_WAIT_S if not self._hashing else _HERE_WAIT_S if self._here else HASHING_WAIT_S
        if waited_s < longest:
            return None
        if self._here:
            return min(self._here.values(), key=lambda here: (self._runtimes.index(here.runtime), here.digest))
        return best[5] if best is not None else None

    def _fits(self, manifest: PartManifest) -> bool:
        return manifest.runtime in self._runtimes and self._content in (None, manifest.content)
