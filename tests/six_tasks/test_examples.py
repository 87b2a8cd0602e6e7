"""The examples, as a newcomer runs them beside `s2m3 up`."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt import publish

from s2m3.cluster import Cluster

pytestmark = pytest.mark.short_on("mosquitto")
ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "s2m3" / "samples"


@pytest.fixture
def run(zoo_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> "Run":
    """Runs an example in this process, with the broker's port in its environment; returns what it printed."""
    monkeypatch.setenv("S2M3_PORT", str(zoo_cluster.settings.port))
    return Run(monkeypatch)


class Run:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, name: str, *words: object) -> list[str]:
        path = ROOT / "examples" / f"{name}.py"
        self._monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            runpy.run_path(str(path), run_name="__main__")
        return out.getvalue().splitlines()


def test_the_first_example_asks_one_question_and_then_several(run: Run) -> None:
    first, *rest = run("ask")
    assert first.startswith("a cat looking at you")
    assert len(rest) >= 6


def test_a_camera_says_what_each_of_its_pictures_shows(run: Run) -> None:
    (line,) = run(
        "watch_camera",
        SAMPLES / "rocket.jpg",
        "--task",
        "retrieval",
        "--text",
        "a rocket",
        "--text",
        "a cat",
        "--times",
        1,
    )
    assert line.startswith("a rocket (")


def test_a_doorbell_is_answered_with_plain_mqtt(run: Run, zoo_cluster: Cluster) -> None:
    port = zoo_cluster.broker.port_v3
    publish.single("home/doorbell/pressed", "1", qos=1, retain=True, port=port, protocol=paho.MQTTv311)
    assert run("answer_doorbell", SAMPLES / "chelsea.jpg", "--port", port, "--times", 1) == ["a cat looking at you"]
    publish.single("home/doorbell/pressed", b"", qos=1, retain=True, port=port, protocol=paho.MQTTv311)


def test_a_microphone_gives_words_and_what_they_mean(run: Run) -> None:
    (words,) = run("hear_microphone", "--file", SAMPLES / "quick-brown-fox.flac")
    assert "quick brown fox" in words
    told = ("--file", SAMPLES / "play-music.flac", "--intent", "play music", "--intent", "turn on the light")
    (intent,) = run("hear_microphone", *told)
    assert intent.startswith("play music (")


def test_a_new_model_shares_the_modules_that_are_there(run: Run) -> None:
    (note,) = run("new_model", "who services the boiler?")
    assert note.startswith("The heating is serviced in May")


def test_plans_are_compared_without_a_site(run: Run) -> None:
    lines = run("plan_compared")
    assert len(lines) == 9
    assert sum("(proven)" in line for line in lines) >= 3
