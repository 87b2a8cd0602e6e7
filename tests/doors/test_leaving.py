"""Callers who leave in the middle: what was written for them stops, at whatever door, and nothing of it is left."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import ollama
import openai
import pytest

from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from tests.doors.door import Door

#: Written back, this takes 50 s: a twentieth of a second for each word, by a pause.
TEXT = "word " * 1_000
SOON_S = 25.0
SAID: list[Any] = [{"role": "user", "content": TEXT}]


@pytest.fixture(scope="module")
def seen(site: Cluster) -> Iterator[Site]:
    with Site(site.settings) as watching:
        yield watching


def waiting(seen: Site) -> int:
    return sum(load.queues.get("noop-writer", 0) for load in seen.loads.values())


def ollama_streams(url: str) -> None:
    parts: Any = ollama.Client(host=url).chat("words", SAID, stream=True)
    with closing(parts):
        next(parts)


def ollama_waits(url: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        ollama.Client(host=url, timeout=1.5).chat("words", SAID)


def openai_streams(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with client.chat.completions.create(model="words", messages=SAID, stream=True) as parts:
        next(iter(parts))


def openai_waits(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=1.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="words", messages=SAID)


@pytest.mark.parametrize(
    "ask",
    [
        ollama_streams,
        openai_streams,
        *(pytest.param(ask, marks=pytest.mark.long) for ask in (ollama_waits, openai_waits)),
    ],
)
def test_a_text_whose_caller_left_is_not_written_on(door: Door, seen: Site, ask: Callable[[str], None]) -> None:
    before = door.memory_mb()
    for _ in range(3):
        ask(door.url)
    assert seen.wait(lambda _: waiting(seen) == 0, SOON_S), seen.loads
    assert door.memory_mb() - before < 20
