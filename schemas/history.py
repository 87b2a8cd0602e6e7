"""The documents of the history: the answers that the bridge keeps, and how a page asks for them. JSON, MQTT 3.1.1.

Each answer of the history is published under the name of its task, so that an access list grants it task by task.
"""

from typing import Annotated, Literal

from pydantic import Field

from s2m3.schemas.bridge import BridgeAnswer
from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.messages import ErrorBody, StepTiming
from s2m3.schemas.protocol import ClosedList

__all__ = ["HistoryBox", "HistoryDone", "HistoryEntry", "HistoryKept", "HistoryState", "HistoryWanted"]

#: Most answers of one query, and most pictures.
_MOST_ENTRIES, _MOST_PICTURES = 200, 32
_Words = Annotated[str, Field(max_length=300)]


class HistoryBox(Document):
    """One of a detector's boxes. Its corners are parts (0 to 1) of the picture's width and height."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


class HistoryEntry(Document):
    """One answer that the bridge keeps."""

    #: larger than that of every earlier answer of this history
    id: int = Field(ge=1)
    task: Id
    #: of the answer, milliseconds since 1970, by the bridge's clock
    at_ms: int = Field(ge=0)
    answer: BridgeAnswer
    #: the model that answered
    model: str | None = None
    #: its place in the task's order of preference: 0 is the best, a larger number a stand-in
    rank: int | None = None
    #: input name -> what was asked, as text; pictures and sound are not among them
    asked: dict[str, str] = Field(default_factory=dict)
    #: what a detector found, the best first
    boxes: list[HistoryBox] = Field(default_factory=list)
    #: time of each step, and where it ran
    steps: dict[Id, StepTiming] = Field(default_factory=dict)
    #: whether the history holds the picture that was asked about
    picture: bool = False
    #: of a search: how well the picture fits, a cosine
    fits: float | None = None


class HistoryWanted(Document):
    """A query. Answers come newest first, those of a search best first; empty fields exclude nothing."""

    transaction: Annotated[str, Field(max_length=64)] = ""
    tasks: list[Id] = Field(default_factory=list, max_length=_MOST_ENTRIES)
    #: part of the topic or the name of the binding that an answer came from
    source: _Words = ""
    #: part of the answer's text, of a label or of what was asked
    words: _Words = ""
    #: milliseconds since 1970
    since_ms: int | None = None
    until_ms: int | None = None
    #: only answers with a smaller id: the next page
    before: int | None = None
    limit: int = Field(default=30, ge=0, le=_MOST_ENTRIES)
    #: ids of answers whose pictures are wanted
    pictures: list[int] = Field(default_factory=list, max_length=_MOST_PICTURES)
    #: a search: pictures that fit this text
    text: _Words = ""
    #: a search: pictures that are like the picture of this answer
    like: int | None = None


class HistoryKept(Document):
    """The answers of one task that fit a query."""

    transaction: str = ""
    entries: list[HistoryEntry] = Field(default_factory=list)


class HistoryDone(Document):
    """The end of a query: what it found was published before."""

    transaction: str = ""
    #: whether there are older answers that fit
    more: bool = False
    #: of a search: pictures that were not looked at, because they wait for their embedding; a later search finds them
    missing: int | None = None
    error: ErrorBody | None = None


class HistoryState(Document):
    """What the bridge keeps, and where."""

    #: disk: over a restart; memory: for ten minutes at most, and while the bridge runs
    kept: Annotated[Literal["disk", "memory", "unknown"], ClosedList()]
    answers: int = 0
    mb: float = 0.0
    limit_mb: float = 0.0
    limit_s: float = 0.0
    #: the task by whose encoders pictures are found, if there is one
    search: Id | None = None
