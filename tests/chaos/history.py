"""What was asked and what came back, with times, as JSON lines; and the verdict that is read from it afterwards."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: A success may come so much after its deadline: what passes between the deadline's timer and the record is not ours.
_LATE_S = 2.0
Entry = Mapping[str, Any]
Kind = Literal["direct", "plain"]


class History:
    """Keeps the record of one run. Threads may share it.

    Args:
        path: The file; each line is written when it happens, so that a run that dies leaves its record behind.
        seed: Of the run: whoever reads the file can replay it.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self._lock = threading.Condition()
        self._file = path.open("w", buffering=1)
        self._open: Counter[str] = Counter()
        self._write({"event": "began", "seed": seed})

    def asked(self, request: str, kind: Kind, task: str, expected: object, deadline_s: float) -> None:
        """A request is on its way."""
        self._write(
            {
                "event": "asked",
                "id": request,
                "kind": kind,
                "task": task,
                "expected": expected,
                "deadline_s": deadline_s,
            }
        )

    def answered(self, request: str, *, value: object = None, code: str | None = None, attempts: int = 1) -> None:
        """An answer came: a value, or an error with a code."""
        self._write({"event": "answered", "id": request, "value": value, "code": code, "attempts": attempts})

    def fault(self, what: str) -> None:
        """Something was broken, or mended, on purpose."""
        self._write({"event": "fault", "what": what})

    def _write(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps({"t": round(time.monotonic(), 4), **entry}) + "\n")
            if entry["event"] == "asked":
                self._open[entry["id"]] = 0
            elif entry["event"] == "answered":
                self._open.pop(entry["id"], None)
                self._lock.notify_all()

    def wait_until(self, enough: Callable[[int], bool], timeout_s: float) -> bool:
        """Waits until so many requests have no answer; returns whether that came."""
        with self._lock:
            return self._lock.wait_for(lambda: enough(len(self._open)), timeout_s)

    def wait_until_all_answered(self, timeout_s: float) -> bool:
        """Waits for the last answer; returns whether it came."""
        return self.wait_until(lambda left: left == 0, timeout_s)

    def close(self) -> None:
        """Ends the record."""
        self._file.close()

    def verdict(self) -> "Verdict":
        """Reads the record back from its file."""
        return judge(read(self.path))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history says. Ids where something is wrong."""

    asked: int
    succeeded: int
    seed: int | None = None
    unanswered: list[str] = field(default_factory=list)
    #: of Clients: there must be none. A plain caller may hear twice (docs/limits.md): counted apart
    duplicates: list[str] = field(default_factory=list)
    plain_duplicates: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: of Clients: a plain request's time runs from when a gateway takes it, and how long it waited before is unknown
    late: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    #: code -> how many
    errors: Mapping[str, int] = field(default_factory=dict)
    #: seconds from asking to success: sorted
    latencies_s: list[float] = field(default_factory=list)
    resent: int = 0

    @property
    def holds(self) -> bool:
        """Whether every request got one terminal answer, right and in time; errors with a code are answers."""
        return not (self.unanswered or self.duplicates or self.wrong or self.late or self.unknown)

    def percentile_s(self, part: float) -> float:
        """Returns the latency that the given part of the successes did not exceed."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * part))]

    def __str__(self) -> str:
        failures = {
            name: f"{len(ids)} ({', '.join(ids[:3])})"
            for name in ("unanswered", "duplicates", "plain_duplicates", "wrong", "late", "unknown")
            if (ids := getattr(self, name))
        }
        times = f"p50 {self.percentile_s(0.5):.3f} s, p99 {self.percentile_s(0.99):.3f} s" if self.latencies_s else ""
        return (
            f"seed {self.seed}: {self.asked} asked, {self.succeeded} succeeded ({self.resent} of them sent again), "
            f"errors {dict(self.errors)}, {failures or 'nothing wrong'}; {times}"
        )


def read(path: Path) -> list[Entry]:
    """Reads a history's file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def judge(entries: Iterable[Entry]) -> Verdict:
    """Returns the verdict on a history: one terminal answer each, the right one, no success past the deadline."""
    asked: dict[str, Entry] = {}
    answers: dict[str, list[Entry]] = defaultdict(list)
    seed = None
    for entry in entries:
        match entry["event"]:
            case "began":
                seed = entry["seed"]
            case "asked":
                asked[entry["id"]] = entry
            case "answered":
                answers[entry["id"]].append(entry)
    successes = {i: a for i in asked for a in answers[i] if a["code"] is None}
    twice = [i for i in asked if len(answers[i]) > 1]
    return Verdict(
        asked=len(asked),
        succeeded=len(successes),
        seed=seed,
        unanswered=[i for i in asked if not answers[i]],
        duplicates=[i for i in twice if asked[i]["kind"] == "direct"],
        plain_duplicates=[i for i in twice if asked[i]["kind"] == "plain"],
        wrong=[i for i in asked if any(a["code"] is None and a["value"] != asked[i]["expected"] for a in answers[i])],
        late=[i for i, a in successes.items() if asked[i]["kind"] == "direct" and _is_late(asked[i], a)],
        unknown=[i for i in answers if i not in asked],
        errors=Counter(a["code"] for i in asked for a in answers[i] if a["code"] is not None),
        latencies_s=sorted(_took_s(asked[i], a) for i, a in successes.items()),
        resent=sum(1 for a in successes.values() if a["attempts"] > 1),
    )


def _is_late(asked: Entry, answered: Entry) -> bool:
    return _took_s(asked, answered) > float(asked["deadline_s"]) + _LATE_S


def _took_s(asked: Entry, answered: Entry) -> float:
    took: float = answered["t"] - asked["t"]
    return took
