"""Finds the documents that were removed while the connection was down: nothing arrives of a cleared topic. Pure."""

from collections.abc import Iterable, MutableMapping
from typing import Any

__all__ = ["Unconfirmed"]

Documents = MutableMapping[str, Any]


class Unconfirmed:
    """Which documents of several kinds were known when the connection was lost, and have not arrived since."""

    def __init__(self) -> None:
        self._documents: dict[int, tuple[Documents, set[str]]] = {}

    def link_down(self, kinds: Iterable[Documents]) -> None:
        """Notes that nothing of what is known, of each kind by its key, is confirmed any more."""
        self._documents = {id(documents): (documents, set(documents)) for documents in kinds}

    def heard(self, documents: Documents, key: str) -> None:
        """Notes that a document of a kind has arrived, or that its topic was cleared."""
        if (found := self._documents.get(id(documents))) is not None:
            found[1].discard(key)

    def drop(self) -> None:
        """Removes the documents that have not arrived."""
        for documents, keys in self._documents.values():
            for key in keys & documents.keys():
                del documents[key]
        self._documents = {}
