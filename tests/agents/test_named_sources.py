"""Checkpoints that tasks name: an agent reads each document once, and looks for each checkpoint once for all tasks."""

import json
from typing import Any

import pytest

from s2m3.agents.named_sources import NamedSources
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.topics import Topic
from tests.recorders import ManualLoop, RecordedLink


def document(*sources: str) -> bytes:
    """A task whose definition has a module of each source."""
    common = {"role": "head", "class": "noop", "memory_mb": 1.0, "gflops": 1.0, "input_kb": 1.0, "output_kb": 1.0}
    modules, steps, before = [], {}, "input.image"
    for at, source in enumerate(sources):
        kind = "image" if at == 0 else "tensor"
        modules.append({"id": f"m{at}", "source": source, "inputs": {"x": kind}, "outputs": {"y": "tensor"}, **common})
        steps[f"s{at}"] = {"module": f"m{at}", "inputs": {"x": before}}
        before = f"s{at}.y"
    model = {"id": "m", "description": "-", "inputs": {"image": "image"}, "answer": ["y"], "steps": steps}
    return json.dumps({"model": "m", "definition": {"modules": modules, "model": model}}).encode()


class Agent:
    """What an agent does with the documents of tasks."""

    def __init__(self, *here: str) -> None:
        self.here, self.looked, self.offered = set(here), list[str](), list[set[str]]()
        self.loop = ManualLoop()
        self.link = RecordedLink(BrokerSettings(root="home"), "s2m3-node-home-a", self.loop)
        NamedSources(self.link, self.loop, holds=self._holds, offer=self.offered.append).start()  # type: ignore[arg-type]

    def _holds(self, source: str) -> bool:
        self.looked.append(source)
        return source in self.here

    def hear(self, task: str, payload: bytes) -> None:
        self.link.deliver(f"home/task/{task}", payload)

    def settle(self) -> list[set[str]]:
        """Returns what is offered once no more documents come."""
        self.loop.advance(1.0)
        found, self.offered[:] = list(self.offered), []
        return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The payloads that are decoded."""
    seen: list[bytes] = []
    decode: Any = Topic.decode

    def decoded(path: Topic[Any], payload: bytes) -> Any:
        seen.append(payload)
        return decode(path, payload)

    monkeypatch.setattr(Topic, "decode", decoded)
    return seen


def test_a_checkpoint_that_is_here_is_offered_and_another_is_not() -> None:
    agent = Agent("/models/here")
    agent.hear("porch", document("/models/here", "/models/there"))
    assert agent.settle() == [{"/models/here"}]


def test_a_checkpoint_is_looked_for_once_for_all_tasks() -> None:
    agent = Agent("/models/here")
    for task in range(50):
        agent.hear(f"t{task}", document("/models/here", "/models/there"))
    assert agent.settle() == [{"/models/here"}]
    assert sorted(agent.looked) == ["/models/here", "/models/there"]


def test_a_document_that_comes_again_is_not_read_again(read: list[bytes]) -> None:
    agent, payload = Agent("/models/here"), document("/models/here")
    for _ in range(3):
        agent.hear("porch", payload)
    agent.settle()
    assert read == [payload]


def test_a_changed_document_is_read_again(read: list[bytes]) -> None:
    agent = Agent("one", "two")
    for source in ("one", "two", "one"):
        agent.hear("porch", document(source))
    assert agent.settle() == [{"one", "two"}]
    assert read == [document("one"), document("two"), document("one")]


def test_a_document_without_a_definition_is_not_read(read: list[bytes]) -> None:
    agent = Agent("here")
    agent.hear("porch", b'{"model":"retrieval"}')
    agent.hear("porch", b"")
    agent.settle()
    assert not read


def test_a_definition_whose_key_is_written_with_escapes_is_read() -> None:
    agent = Agent("here")
    agent.hear("porch", document("here").replace(b'"definition"', b'"\\u0064efinition"'))
    assert agent.settle() == [{"here"}]


def test_a_checkpoint_that_came_since_is_offered_when_the_task_is_published_again() -> None:
    agent = Agent()
    agent.hear("porch", document("late"))
    assert agent.settle() == []
    agent.here.add("late")
    agent.hear("porch", document("late"))
    assert agent.settle() == [{"late"}]


def test_a_document_that_cannot_be_read_harms_nobody() -> None:
    agent = Agent("here")
    for _ in range(2):
        agent.hear("bad", b'{"definition": 5')
    agent.hear("porch", document("here"))
    assert agent.settle() == [{"here"}]


def test_a_task_that_is_removed_and_added_again_is_read_again(read: list[bytes]) -> None:
    agent = Agent("here")
    for payload in (document("here"), b"", document("here")):
        agent.hear("porch", payload)
    assert agent.settle() == [{"here"}]
    assert len(read) == 2
