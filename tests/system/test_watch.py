"""`s2m3 watch` and tables: on terminals of any size nothing is cut off, and a pipe gets every event."""

import fcntl
import io
import os
import pty
import queue
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console, Group
from rich.text import Text

from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.commands.terminal import Listing
from s2m3.commands.watch import event_line, screen
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import WAIT_S

#: 80 columns; a phone of 358 pixels over ssh; less than anybody has.
WIDTHS = [200, 80, 45, 12]
EVENT = m.Event(
    event="module_failed", node="pi-kitchen", module="efficientnet-lite0", detail="not enough memory: 17 MB"
)


def shown(width: int, *what: object, height: int = 24) -> list[str]:
    """Prints on a terminal of a size; returns its lines."""
    terminal = Console(file=io.StringIO(), width=width, height=height, markup=False, highlight=False)
    terminal.print(*what)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue().splitlines()


def nodes() -> Listing:
    listing = Listing("node", "state", "modules (MB, ms per item)", title="nodes", numbers=["state"])
    held = "efficientnet-lite0-of-another-name (18.6, 12.3 ms)\nminilm [bold] (22.7)"
    listing.add_row("desktop-in-the-attic", Text("ready", style="green"), held)
    listing.add_row("pi5", "lost", "-")
    return listing


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_of_a_listing_is_cut_off_at_any_width(width: int) -> None:
    lines = shown(width, nodes())
    assert all(len(line) <= width for line in lines)
    everything = re.sub(r"\s", "", "".join(lines))
    for word in ("desktop-in-the-attic", "ready", "pi5", "lost", "minilm[bold](22.7)", "(18.6,12.3ms)"):
        assert word in everything
    assert "…" not in everything


def test_a_listing_is_a_table_where_each_word_has_room_and_lines_where_not() -> None:
    wide, narrow = shown(80, nodes()), shown(45, nodes())
    assert any("desktop-in-the-attic" in line and "ready" in line for line in wide)
    assert "desktop-in-the-attic" in narrow
    assert "  state: ready" in [line.rstrip() for line in narrow]
    assert "efficientnet-lite0-of-another-name" in " ".join(narrow).split()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [5, 12, 24, 200])
def test_the_screen_has_as_many_lines_as_the_terminal_and_ends_with_the_newest_event(width: int, height: int) -> None:
    terminal = Console(file=io.StringIO(), width=width, height=height, markup=False, highlight=False)
    events = [Text(f"{event_line(EVENT)} number {number}", overflow="fold") for number in range(8)]
    lines = shown(width, screen(terminal, Group(nodes(), nodes()), events), height=height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("nodes")
    whole = " ".join(" ".join(lines).split())
    if width > 12:
        assert "module_failed node=pi-kitchen" in whole
    if height == 200:
        assert whole.endswith("number 7")
        assert "more lines" not in whole
        assert "number 0" in whole
    elif width > 12 and height <= 12:
        assert "more lines" in whole


def test_without_events_the_whole_screen_is_the_site() -> None:
    terminal = Console(file=io.StringIO(), width=80, height=24)
    assert shown(80, screen(terminal, Text("planner: online"), [])) == ["planner: online"]


@contextmanager
def watching(port: int, output: int, read: Callable[[], bytes], **env: str) -> Iterator["queue.Queue[bytes]"]:
    """Runs the command; yields what it prints, piece by piece."""
    command = [sys.executable, "-m", "s2m3", "watch", "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, env={**clean, **env})
    os.close(output)
    told: queue.Queue[bytes] = queue.Queue()

    def pump() -> None:
        try:
            while piece := read():
                told.put(piece)
        except OSError:  # of a terminal whose other end is closed
            pass

    reader = threading.Thread(target=pump, daemon=True)
    reader.start()
    try:
        yield told
    finally:
        process.kill()
        process.wait()
        reader.join(WAIT_S)


def until(told: "queue.Queue[bytes]", word: str) -> str:
    """Waits until a word has been printed; returns all that was since the last call."""
    text = ""
    while word not in text:
        text += told.get(timeout=WAIT_S).decode(errors="replace")
    return text


@pytest.mark.short_on("mosquitto")
def test_a_pipe_gets_the_site_once_and_then_each_event_whole_on_a_line(noop_cluster: Cluster, noop_site: Site) -> None:
    read, write = os.pipe()
    with watching(noop_cluster.settings.port, write, lambda: os.read(read, 65_536)) as told:
        assert "planner: online" in until(told, "noop-head on")
        add_task(noop_site, "another-task-of-a-rather-long-name", m.TaskSpec(model="noop"))
        text = until(told, "plan_changed")
        long = m.Event(event="request_failed", task="noop", detail=f"{'long ' * 60}end")
        for _ in range(3):
            noop_site.publish(topics.EVENT, long.encode())
        text += until(told, "end\n")
    os.close(read)
    (line, *_) = [line for line in text.splitlines() if "request_failed" in line]
    assert re.fullmatch(r"\d\d:\d\d:\d\d  request_failed  task=noop  detail=(long ){60}end", line)


@pytest.mark.short_on("mosquitto")
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (45, 20)])
def test_a_terminal_of_a_phone_shows_what_happens(
    noop_cluster: Cluster, noop_site: Site, columns: int, lines: int
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with watching(noop_cluster.settings.port, theirs, lambda: os.read(ours, 65_536), TERM="xterm") as told:
        until(told, "planner: online")
        noop_site.publish(topics.EVENT, EVENT.encode())
        text = until(told, "17 MB")
    os.close(ours)
    printed = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip("\r") for line in text.split("\n")]
    assert all(len(line.rpartition("\r")[2]) <= columns for line in printed)
    assert "node=pi-kitchen" in " ".join(printed)
