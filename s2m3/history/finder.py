"""Embeds pictures and texts by the encoders of the site's tasks, and finds the pictures that fit best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import structlog

from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.history.encoders import Encoders, encoders_of
from s2m3.history.store import HistoryStore
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import NotReadyError, S2M3Error
from s2m3.schemas.history import HistoryEntry, HistoryWanted
from s2m3.schemas.messages import RouteDoc

if TYPE_CHECKING:
    from s2m3.agents.zoo.conse import Conse

__all__ = ["Finder", "Raw", "Vector", "best", "packed", "unit_vector"]

Vector = npt.NDArray[np.float32]
_log = structlog.get_logger(__name__)
#: Task names of these requests; no task of a site can have them.
_PICTURE, _TEXT = "history-picture", "history-text"


@dataclass(frozen=True, slots=True)
class Raw:
    """The output of an encoder for a picture: the embedding, or class logits (1, D), and the space of embeddings."""

    space: str
    value: Vector
    is_conse: bool


class Finder:
    """The encoders of a site, for searching pictures. Its methods are called in the loop's thread.

    Args:
        dispatcher: Sends the requests.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._encoders: Encoders | None = None

    @property
    def task(self) -> str | None:
        """The task whose encoders are used; None if the site serves none that compare pictures with texts."""
        return self._encoders.task if self._encoders else None

    @property
    def space(self) -> str:
        """Name of the space of the embeddings."""
        return self._encoders.space if self._encoders else ""

    def look(self, routes: Mapping[str, RouteDoc]) -> None:
        """Takes the routes of the site as they are now."""
        found = encoders_of(routes)
        if found != self._encoders:
            self._encoders = found
            self._dispatcher.routes.put(_PICTURE, found.picture if found else None)
            self._dispatcher.routes.put(_TEXT, found.text if found else None)

    def embed_picture(self, picture: bytes, done: Callable[[Raw | S2M3Error], None]) -> None:
        """Embeds a picture; `done` gets the encoder's output (see `unit_vector`), or the error."""
        if (encoders := self._encoders) is None:
            done(_none_ready())
            return

        def settle(result: Result) -> None:
            if result.error is not None:
                _log.warning("picture_not_embedded", error=str(result.error))
                done(result.error)
            else:
                done(Raw(encoders.space, _value(result), encoders.is_conse))

        self._dispatcher.submit(_PICTURE, {encoders.picture_input: picture}, None, settle)

    def embed_text(self, text: str, done: Callable[[str, Vector | S2M3Error], None]) -> None:
        """Embeds a text; `done` gets the space, and the unit vector or the error."""
        if (encoders := self._encoders) is None:
            done("", _none_ready())
            return
        value = [text] if encoders.text.inputs[encoders.text_input] == "texts" else text
        settle = partial(_settle_text, encoders.space, done)
        self._dispatcher.submit(_TEXT, {encoders.text_input: value}, None, settle)


def _none_ready() -> S2M3Error:
    return NotReadyError("no task whose model compares pictures with texts is ready")


def unit_vector(raw: Raw) -> Vector:
    """Returns the unit vector (D,) of a picture. It reads the table of ConSE once, so not in the loop's thread.

    Raises:
        ModuleFailedError: The table of ConSE is not installed.
    """
    return _unit(_conse().vectors(raw.value) if raw.is_conse else raw.value)


def _settle_text(space: str, done: Callable[[str, Vector | S2M3Error], None], result: Result) -> None:
    done(space, result.error if result.error is not None else _unit(_value(result)))


def _value(result: Result) -> Vector:
    """Returns the one output of a request as (1, D)."""
    return np.asarray(next(iter(result.outputs.values())), dtype=np.float32).reshape(1, -1)


def _unit(value: Vector) -> Vector:
    flat: Vector = value.reshape(-1)
    return flat / max(float(np.linalg.norm(flat)), 1e-12)


@cache
def _conse() -> "Conse":
    """Returns the head that converts class logits into vectors of pictures, with its table.

    Raises:
        ModuleFailedError: The table is not installed.
    """
    from s2m3.agents.zoo.conse import load_conse  # noqa: PLC0415  # reads its table, where it is needed

    return load_conse(shipped_catalogue().modules["conse"])


def packed(vector: Vector) -> bytes:
    """Returns a vector as the store keeps it: little-endian float16."""
    return vector.astype("<f2").tobytes()


def best(store: HistoryStore, wanted: HistoryWanted, space: str, vector: Vector) -> list[HistoryEntry]:
    """Returns the answers whose pictures fit best, the best first: one dot product for each picture of the history.

    Args:
        store: The history; in its thread.
        wanted: The query: the answers to search, and the number of results.
        space: The space of the vector.
        vector: The unit vector (D,).
    """
    found: list[tuple[float, int]] = []
    for rows in store.vectors(wanted, space):
        fitting = [(entry, packed) for entry, packed in rows if len(packed) == 2 * len(vector)]
        if not fitting:
            continue
        matrix = np.frombuffer(b"".join(packed for _, packed in fitting), "<f2").reshape(len(fitting), -1)
        scores = matrix.astype(np.float32) @ vector
        found += [(float(score), entry) for score, (entry, _) in zip(scores, fitting, strict=True)]
        found = sorted(found, reverse=True)[: wanted.limit]
    cosines = {entry: score for score, entry in found}
    entries = store.entries(list(cosines))
    return [entry.model_copy(update={"fits": round(cosines[entry.id], 4)}) for entry in entries]
