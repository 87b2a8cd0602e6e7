"""On the shipped secured Mosquitto: a bridge that gets a further right keeps its others, and a site leaves no trace."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import WAIT_S, has_mosquitto
from tests.secured.secured import SecuredSite, ended, linked, published, secure, short_folder

READY_S = 240.0
BIND = ("--task", "noop", "--input", "left", "--set", "right=r")


class _Running(SecuredSite):
    """With its processes."""

    processes: list[subprocess.Popen[bytes]]


@pytest.fixture
def site() -> Iterator[_Running]:
    """Broker, planner, one light agent with the task `noop`, and a bridge that may read one topic and write another."""
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    with short_folder() as folder:
        made = _Running(folder)
        secure("init", made.folder, "--host", "127.0.0.1", "--add", "agent:a", "--add", "client:alice")
        secure("add", made.folder, "bridge", "bridge", "--read", "frigate/#", "--write", "home/#")
        secure(
            "add", made.folder, "neighbour", "house", "--read", "home/#", "--write", "frigate/#", "--write", "bell/#"
        )
        made.start()
        agent = made.spawn("a", "agent", "--memory-mb", "150")
        made.processes = [agent, made.spawn("planner", "planner"), made.spawn("bridge", "bridge")]
        try:
            with Site(made.settings("operator")) as seen:
                seen.publish(topics.TASK, m.TaskSpec(model="noop").encode(), task="noop")
                assert seen.wait(lambda s: s.ready("noop") and s.bridge is not None, READY_S), made.told("planner")
            yield made
        finally:
            for process in made.processes:
                ended(process)
            made.stop()


def _say(site: SecuredSite, loop: Loop, topic: str, answer: str) -> None:
    """Publishes as a device of the house, and waits for the answer."""
    heard = threading.Event()
    with linked(site, loop, "house") as link:
        subscribed = threading.Event()
        link.subscribe(answer, lambda message: None if message.retain else heard.set(), on_subscribed=subscribed.set)
        assert subscribed.wait(WAIT_S)
        deadline = time.monotonic() + WAIT_S
        published(link, topic, b"knock")
        while not heard.wait(1.0):  # a bridge that the broker's restart disconnected hears it once it is back
            assert time.monotonic() < deadline, f"{topic} was not answered on {answer}"
            published(link, topic, b"knock")


def test_22_and_25_a_further_right_takes_none_away_and_a_login_for_leaving_clears_all(
    site: _Running, shared_loop: Loop
) -> None:
    def typed(*words: str) -> None:
        done = site.run("operator", *words)
        assert done.returncode == 0, done.stderr

    typed("bind", "frigate/+", *BIND, "--publish", "home/{1}", "--retain")
    _say(site, shared_loop, "frigate/porch", "home/porch")
    typed("bind", "bell/+", *BIND, "--publish", "home/{1}")
    secure("add", site.folder, "bridge", "bridge", "--read", "bell/#")
    site.restart()
    _say(site, shared_loop, "bell/front", "home/front")
    _say(site, shared_loop, "frigate/porch", "home/porch")

    words = ("--read", "homeassistant/device/+/config", "--read", "home/#")
    writes = ("--write", "homeassistant/device/+/config", "--write", "home/#")
    secure("add", site.folder, "neighbour", "leaving", *words, *writes)
    site.restart()
    running = site.run("leaving", "uninstall", "--dry-run", "--json")
    assert {"bridge", "node a", "planner"} == set(json.loads(running.stdout)["running"])
    not_let = site.run("alice", "uninstall", "--yes")  # it can read routes, and may not write them
    assert not_let.returncode == 1
    assert "does not let" in not_let.stderr
    for process in site.processes:
        ended(process)
    left = site.run("leaving", "uninstall", "--yes", "--json")
    assert left.returncode == 0, left.stderr
    assert "homeassistant/device/s2m3-planner/config" in json.loads(left.stdout)["cleared"]
    assert json.loads(site.run("leaving", "uninstall", "--dry-run", "--json").stdout)["found"] == []
