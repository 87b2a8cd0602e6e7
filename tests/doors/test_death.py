"""200 requests of each client that nobody wrote here, of all kinds, and a node killed -9 in the middle: 0 errors."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task, checkpoint_definition
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.doors.door import Door, opened
from tests.doors.test_clients import CAT, SHOWN, said
from tests.doors.wyoming_site import has_spare
from tests.families.speech import sound

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]
REQUESTS = 200
NODES = {"pi": 2_000.0, "laptop": 2_000.0, "desktop": 2_000.0}
TASKS = ("chat", "look", "meaning", "hear", "say")
PICTURE: Any = [{"role": "user", "content": [SHOWN, {"type": "text", "text": "what is this"}]}]
SPEECH = ("speech.wav", sound(1))


@pytest.fixture(scope="module")
def house(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Door]]:
    """Three nodes with a second copy of each module, and a door."""
    with Cluster(NODES, threads=1, checkpoints=dict.fromkeys(NODES, shelf)) as cluster:
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: s.nodes.ready == set(NODES) and len(s.profiles) == len(NODES), WAIT_S)
            for task in TASKS:
                definition = checkpoint_definition(str(shelf / task), task)
                assert definition is not None
                add_task(seen, task, m.TaskSpec(model=definition.model.id, definition=definition, deadline_s=120))
            assert seen.wait(lambda s: all(has_spare(s, task) for task in TASKS), WAIT_S), seen.routes
        with opened(cluster.settings.port, tmp_path_factory.mktemp("door")) as door:
            yield cluster, door


def _of_ollama(door: Door) -> list[Callable[[], Any]]:
    client, few = ollama.Client(host=door.url), {"num_predict": 12}
    return [
        lambda: client.chat("chat", said("a"), options=few).message.content,
        lambda: "".join(p.message.content or "" for p in client.chat("chat", said("b"), options=few, stream=True)),
        lambda: client.generate("look", "what is this", images=[CAT], options=few).response,
        lambda: client.embed("meaning", ["a cat", "the moon"]).embeddings,
    ]


def _of_openai(door: Door) -> list[Callable[[], Any]]:
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
    chat, audio = client.chat.completions, client.audio
    return [
        lambda: chat.create(model="chat", messages=said("a"), max_tokens=12).choices[0].message.content,
        lambda: "".join(
            part.choices[0].delta.content or ""
            for part in chat.create(model="chat", messages=said("b"), max_tokens=12, stream=True)
        ),
        lambda: chat.create(model="look", messages=PICTURE, max_tokens=12).choices[0].message.content,
        lambda: client.embeddings.create(model="meaning", input="a cat").data[0].embedding,
        lambda: audio.transcriptions.create(model="hear", file=SPEECH).text,
        lambda: [event.type for event in audio.transcriptions.create(model="hear", file=SPEECH, stream=True)][-1],
        lambda: len(audio.speech.create(model="say", voice="any", input="hello there").content) > 1_000,
    ]


def test_a_killed_node_is_not_noticed_by_any_client(house: tuple[Cluster, Door]) -> None:
    cluster, door = house
    kinds = [_of_ollama(door), _of_openai(door)]
    expected = [[ask() for ask in asks] for asks in kinds]

    def one(number: int) -> bool:
        if number == REQUESTS:
            cluster.kill("laptop")
        client, turn = number % 2, number // 2
        which = turn % len(kinds[client])
        return bool(_is_same(kinds[client][which](), expected[client][which]))

    with ThreadPoolExecutor(8) as pool:
        same = list(pool.map(one, range(2 * REQUESTS)))
    assert same == [True] * 2 * REQUESTS
    with Site(cluster.settings) as site:
        assert site.wait(lambda s: "laptop" not in s.nodes.ready, 10)


def _is_same(found: Any, expected: Any) -> bool:
    """Whether answers are equal; numbers as far as batches of other sizes leave them."""
    if isinstance(expected, str | bool):
        return bool(found == expected)
    return (
        bool(found == pytest.approx(expected, abs=1e-5)) if _is_flat(expected) else all(map(_is_same, found, expected))
    )


def _is_flat(numbers: Any) -> bool:
    return all(isinstance(number, float) for number in numbers)
