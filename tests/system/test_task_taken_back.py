"""`s2m3 task add` of a task that cannot be asked leaves nothing behind; an interrupted one says what stays."""

import signal
import subprocess
import sys

import pytest

from s2m3.broker.servers.launch import Broker
from s2m3.commands import tasks
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.command import s2m3_here
from tests.conftest import WAIT_S


def _hears_interrupts() -> None:
    """A suite in the background (nohup) ignores SIGINT, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _tasks(settings: BrokerSettings) -> dict[str, str]:
    with Site(settings) as site:
        return {name: spec.model for name, spec in site.tasks.items()}


def test_24_a_task_that_nobody_places_is_taken_back(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_READY_S", 0.3)
    done = s2m3_here("task", "add", "porch", "--model", "noop", port=broker.port)
    assert done.returncode == 1
    assert "porch is not ready after 0.3 s (planner: not there)" in done.stderr
    assert "porch is taken back, nothing of it stays" in done.stderr
    assert _tasks(BrokerSettings(port=broker.port)) == {}


def test_24_a_change_that_fails_leaves_the_task_as_it_was(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BrokerSettings(port=broker.port)
    with Site(settings) as site:
        site.publish(topics.TASK, m.TaskSpec(model="noop").encode(), task="porch")
    monkeypatch.setattr(tasks, "_READY_S", 0.3)
    done = s2m3_here("task", "add", "porch", "--model", "vqa", port=broker.port)
    assert done.returncode == 1
    assert "porch is what it was before" in done.stderr
    assert _tasks(settings) == {"porch": "noop"}


def test_24_without_waiting_it_is_added_and_stays(broker: Broker) -> None:
    done = s2m3_here("task", "add", "porch", "--model", "noop", "--no-wait", port=broker.port)
    assert (done.returncode, done.stderr) == (0, "")
    assert _tasks(BrokerSettings(port=broker.port)) == {"porch": "noop"}


def test_24_an_interrupted_wait_says_that_the_task_stays(broker: Broker) -> None:
    command = [sys.executable, "-m", "s2m3", "task", "add", "porch", "--model", "noop", "--port", str(broker.port)]
    with Site(BrokerSettings(port=broker.port)) as site:
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hears_interrupts,  # noqa: PLW1509  # it sets a signal and nothing else
        )
        assert site.wait(lambda s: "porch" in s.tasks, WAIT_S)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=WAIT_S)[1]
        assert process.returncode == 130
        assert "s2m3: porch stays added and is served once it is ready; take it back: s2m3 task rm porch" in said
        assert "porch" in site.tasks
