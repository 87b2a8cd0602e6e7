"""The command `watch`: shows the site and its events continuously, on a terminal of any size or into a pipe."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.segment import Segment, SegmentLines
from rich.text import Text

from s2m3.commands import options
from s2m3.commands.status import problems, tables
from s2m3.commands.terminal import console
from s2m3.schemas.messages import Event
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site

__all__ = ["event_line", "screen", "watch"]

_REFRESH_S = 0.25
#: Events on a terminal, and the part of its lines that they may have where not everything fits.
_EVENTS, _EVENTS_SHARE = 8, 3


@options.with_settings(BrokerSettings)
def watch(settings: BrokerSettings) -> None:
    """Show what `status` shows, live, and what happens, until Ctrl-C. `s2m3 watch`.

    Into a pipe it prints each event as a line: `s2m3 watch | tee events.log`.
    """
    terminal = console()
    with Site(settings, roll_call="watch") as site:
        if not terminal.is_terminal:
            _print_events(site, terminal)
        with Live(_now(site, terminal), console=terminal, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                time.sleep(_REFRESH_S)
                site.look_for_missing()
                live.update(_now(site, terminal), refresh=True)


def _print_events(site: Site, output: Console) -> None:
    """Prints the site once, and then each event on a line of its own, for ever."""
    with site.still():
        output.print(Group(tables(site), *problems(site)))
        told = site.events_heard
    while True:
        output.file.flush()
        site.wait(_has_more_than(told), _REFRESH_S)
        site.look_for_missing()
        with site.still():
            new, told = site.events_heard - told, site.events_heard
            events = site.events[-new:] if new else []
        if new > len(events):
            output.print(f"{new - len(events)} events are left out: too many at once")
        for event in events:
            output.print(f"{time.strftime('%H:%M:%S')}  {event_line(event)}")


def _has_more_than(told: int) -> Callable[[Site], bool]:
    return lambda site: site.events_heard > told


def _now(site: Site, terminal: Console) -> RenderableType:
    """Returns the site as it is now and the last events, as far as the terminal has lines for them."""
    with site.still():
        shown = Group(*problems(site), tables(site))
        events = [Text(event_line(event), style="dim", overflow="fold") for event in site.events[-_EVENTS:]]
        return screen(terminal, shown, events)


def screen(terminal: Console, shown: RenderableType, events: Sequence[Text]) -> RenderableType:
    """Returns what a terminal shows, in no more lines than it has.

    Everything is wrapped to its width. Where not all fits, the newest events have a third of the lines or what the rest
    leaves free; the rest begins with what comes first in it, and a last line says how many more there are.

    Args:
        terminal: The terminal.
        shown: The site, with what matters most first.
        events: The newest events, the newest last.
    """
    options = terminal.options.update(height=None)
    above = terminal.render_lines(shown, options, pad=False)
    height = max(terminal.height, 4)
    share, below = max(height // _EVENTS_SHARE, height - len(above)), list[list[Segment]]()
    for event in reversed(events):
        lines = terminal.render_lines(event, options, pad=False)
        if below and len(lines) + len(below) > share:
            break
        below = [*lines[:share], *below]
    if len(above) + len(below) > height:
        left_out = len(above) - (height - len(below)) + 1
        more = Text(f"… {left_out} more lines: s2m3 status"[: terminal.width], style="dim")
        above = [*above[: len(above) - left_out], *terminal.render_lines(more, options, pad=False)]
    return SegmentLines([*above, *below], new_lines=True)


def event_line(event: Event) -> str:
    """Returns an event as a line: its name, then what it says of itself as `key=value`."""
    told = event.model_dump(exclude_none=True)
    return "  ".join(f"{value}" if name == "event" else f"{name}={value}" for name, value in told.items())
