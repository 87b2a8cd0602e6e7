"""`s2m3 up` as a user starts it, in a process of its own, with what a test does to it: kill a node, end the broker.

And what the page must show of a killed node, whoever started it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import BrokerKind
from tests.conftest import WAIT_S

READY_S = 240.0
#: From a node's death to the page's word for it, seconds: as long as a test waits for anything, because none may depend
#: on the machine's speed. `LOST_WITHIN_S=2 pytest -k …` holds the 2 s of docs/dashboard.md, on an idle machine.
LOST_WITHIN_S = float(os.environ.get("LOST_WITHIN_S", WAIT_S))
SAMPLES = Path(__file__).parents[2] / "s2m3" / "samples"

#: Counts the dots that fly over the board, one for each branch of a request, from here on.
COUNT_DOTS = """() => {
  window.dots = 0;
  const count = (changes) => { for (const change of changes) window.dots += change.addedNodes.length; };
  new MutationObserver(count).observe(document.querySelector(".dots"), { childList: true });
}"""


class Up:
    """A running `s2m3 up`.

    Args:
        kind: Of broker.
        folder: For what it prints.
    """

    def __init__(self, kind: BrokerKind, folder: Path) -> None:
        self._broker_word = "s2m3.broker.servers.embedded" if kind == "embedded" else "-c"
        self._printed = folder / "up.txt"
        with self._printed.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "s2m3", "up", "--broker", kind, "--port", "0", "--page-port", "0"],
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.url = self._told(r"the page is at (\S+)")
        self.port = int(self._told(r"broker on 127\.0\.0\.1:(\d+)"))
        self.port_v3 = int(self._told(r"\(MQTT 3\.1\.1: (\d+)\)"))
        self._restarted: subprocess.Popen[bytes] | None = None

    def _told(self, pattern: str) -> str:
        deadline = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self._printed.read_text())):
            assert self.process.poll() is None, self._printed.read_text()
            assert time.monotonic() < deadline, self._printed.read_text()
            time.sleep(0.05)
        return found[1]

    def kill_node(self, node: str) -> float:
        """SIGKILL; returns when, on the clock that the browser's Date.now() reads too (ms)."""
        child = self._child("--node", node)
        at = time.time() * 1000
        child.kill()
        return at

    def kill_broker(self) -> tuple[list[str], dict[str, str]]:
        """SIGKILL; returns what to start it with again."""
        child = self._child(self._broker_word)
        command, env = child.cmdline(), child.environ()
        child.kill()
        return command, env

    def start_broker(self, command: list[str], env: dict[str, str]) -> None:
        self._restarted = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _child(self, *words: str) -> psutil.Process:
        for child in psutil.Process(self.process.pid).children():
            if child.status() != psutil.STATUS_ZOMBIE and set(words) <= set(child.cmdline()):
                return child
        raise AssertionError(f"no process of {words}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(WAIT_S)
        if self._restarted is not None:
            self._restarted.kill()
            self._restarted.wait(WAIT_S)


def watch_for_loss(page: Page, node: str) -> None:
    """Has the page note when the node turns lost, and count the modules that fly."""
    page.evaluate(_WATCH, node)


def assert_lost_in_time(page: Page, node: str, killed: float) -> None:
    """Args: killed: when, on the clock that the browser's Date.now() reads too (ms)."""
    expect(page.locator(f"[data-node={node}]")).to_have_attribute("data-state", "lost")
    lost = page.evaluate("window.lostAt") - killed
    assert lost < LOST_WITHIN_S * 1000, f"the page showed the loss after {lost:.0f} ms"


_WATCH = """(node) => {
  window.flights = 0;
  const animate = Element.prototype.animate;
  Element.prototype.animate = function (...how) {
    if (this.dataset.chip) window.flights += 1;
    return animate.apply(this, how);
  };
  const card = document.querySelector(`[data-node=${node}]`);
  new MutationObserver(() => { if (card.dataset.state === "lost") window.lostAt ??= Date.now(); })
    .observe(card, { attributes: true });
}"""
