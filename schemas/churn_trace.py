"""Traces of devices that are lost and join again: read from a file, or drawn from rates. Pure but for the file."""

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s2m3.schemas.errors import BadDefinitionError, BadInputError

__all__ = ["Trace", "TraceEvent", "drawn_trace", "load_trace", "read_trace"]

#: Least of a drawn trace's times, seconds: events are rounded to it.
_LEAST_S = 0.001
#: Most events of a drawn trace, on the mean: each is planned for, which takes some milliseconds.
_MOST_EVENTS = 100_000

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TraceEvent(BaseModel):
    """A device that is lost or joins, `at_s` seconds after the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_s: _Seconds
    kind: Literal["lost", "joined"]
    device: str


class Trace(BaseModel):
    """Events in order of time, up to `until_s` seconds. All devices are there at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    events: tuple[TraceEvent, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the document that `load_trace` reads."""
        return {"until_s": self.until_s, "events": [{"at_s": e.at_s, e.kind: e.device} for e in self.events]}


def load_trace(path: Path, devices: Iterable[str]) -> Trace:
    """Reads a trace file: `{"until_s": 3600, "events": [{"at_s": 60, "lost": "pi5"}, {"at_s": 90, "joined": "pi5"}]}`.

    Raises:
        BadDefinitionError: The file cannot be read or is invalid; the text names the file and the event.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadDefinitionError(f"{path.name}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadDefinitionError(f"{path.name}: not JSON: {error}") from error
    return read_trace(document, path.name, devices)


def read_trace(document: Any, where: str, devices: Iterable[str]) -> Trace:
    """Returns a validated trace.

    Args:
        document: The trace as JSON values.
        where: The document's name in errors.
        devices: Ids of the instance's devices.

    Raises:
        BadDefinitionError: The document is invalid, an event names an unknown device or is after the end, or a device
            is lost that is away or joins that is there.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("events"), list):
        raise BadDefinitionError(f'{where}: not an object with "until_s" and a list "events"')
    events = []
    for number, event in enumerate(document["events"]):
        kinds = [kind for kind in ("lost", "joined") if isinstance(event, Mapping) and kind in event]
        if len(kinds) != 1:
            raise BadDefinitionError(f'{where}: events.{number}: not {{"at_s": …, "lost" or "joined": DEVICE}}')
        rest = {key: value for key, value in event.items() if key not in kinds and not key.startswith("x-")}
        events.append({**rest, "kind": kinds[0], "device": event[kinds[0]]})
    own = {key: value for key, value in document.items() if not key.startswith("x-")}
    try:
        trace = Trace.model_validate(own | {"events": events})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadDefinitionError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    _check_order(trace, where, set(devices))
    return trace


def _check_order(trace: Trace, where: str, devices: set[str]) -> None:
    away: set[str] = set()
    before_s = 0.0
    for number, event in enumerate(trace.events):
        said = f"{where}: events.{number}"
        if event.device not in devices:
            raise BadDefinitionError(f"{said}: no device {event.device!r}; there are: {', '.join(sorted(devices))}")
        if event.at_s > trace.until_s:
            raise BadDefinitionError(f"{said}: at_s {event.at_s:g} is after the end, until_s {trace.until_s:g}")
        if event.at_s < before_s:
            raise BadDefinitionError(f"{said}: at_s {event.at_s:g} is before the event above it, {before_s:g}")
        if (event.kind == "lost") == (event.device in away):
            state = "away" if event.kind == "lost" else "there"
            raise BadDefinitionError(f"{said}: {event.device} is {event.kind} and was already {state}")
        (away.add if event.kind == "lost" else away.discard)(event.device)
        before_s = event.at_s


def drawn_trace(
    devices: Iterable[str], *, until_s: float, lost_every_s: float, back_after_s: float, seed: int = 0
) -> Trace:
    """Returns a random trace: each device by itself, times between exponentially distributed.

    Args:
        devices: Ids of the devices that come and go.
        until_s: The length of the trace, seconds.
        lost_every_s: Mean time from a device's join to its loss, seconds.
        back_after_s: Mean time from its loss to its join, seconds.
        seed: Of the draws.

    Raises:
        BadInputError: A time is not finite and above 0, or the trace would have too many events.
    """
    names = list(devices)
    times_s = (until_s, lost_every_s, back_after_s)
    if not all(math.isfinite(time_s) for time_s in times_s) or min(times_s) < _LEAST_S:
        raise BadInputError(f"the times of a drawn trace are above 0: seconds from {_LEAST_S:g} on")
    expected = 2 * len(names) * until_s / (lost_every_s + back_after_s)
    if expected > _MOST_EVENTS:
        raise BadInputError(f"a drawn trace has at most {_MOST_EVENTS} events, and this one would have {expected:.0f}")
    chance = random.Random(seed)  # noqa: S311  # not a secret
    events = []
    for device in names:
        kinds = (("lost", lost_every_s), ("joined", back_after_s))
        at_s, turn = 0.0, 0
        while True:
            kind, mean_s = kinds[turn % 2]
            at_s = round(at_s + chance.expovariate(1 / mean_s), 3)
            if at_s >= until_s:
                break
            events.append({"at_s": at_s, "kind": kind, "device": device})
            turn += 1
    events.sort(key=lambda event: (event["at_s"], event["device"]))
    return Trace.model_validate({"until_s": until_s, "events": events})
