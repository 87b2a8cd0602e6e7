"""What run_on_fake looks at beside answers: a full device, and copies that arrive late. Of its process alone."""

import time
from pathlib import Path
from queue import Queue
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from s2m3.agents import transfers
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device, put_on
from s2m3.agents.loading import Loaded, Loader
from s2m3.agents.runtimes.network import TORCH
from s2m3.agents.serving.runner import Runner
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.wire.work import Hop, Work
from tests.checkpoints.models import definition
from tests.conftest import WAIT_S
from tests.devices.fake_device import ROOM, Stream
from tests.zoo.samples import sample

_ITEMS = 6


class _Fake(Device):
    """The fake device as an agent has it: it says what it takes, and copies by itself if it is told to."""

    def __init__(self, *, pins: bool = False) -> None:
        super().__init__("fake:0")
        self._does = pins

    @property
    def pins(self) -> bool:
        return self._does

    def taken_mb(self) -> float:
        return 0.0

    def give_back(self) -> None:
        """Nothing is kept."""

    def wait_for_copies(self) -> None:
        Stream().synchronize()


class _Held:
    def __init__(self) -> None:
        torch.manual_seed(7)
        self.network = nn.Sequential(nn.Linear(200, 100), nn.Linear(100, 200))


def copies_through_pinned_memory() -> str:
    """Returns what is wrong with results that come back late, and with what is pinned on the way."""
    expected, held, pinned = _Held(), _Held(), list[int]()
    rows = torch.ones(200, 200)

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.nbytes)
        return tensor.clone()

    def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        pinned.append(-1)
        return torch.empty(shape, dtype=dtype)

    with (
        patch.object(torch.Tensor, "pin_memory", pin),
        patch.object(torch.Tensor, "is_pinned", lambda _: False),
        patch.object(transfers, "pinned_empty", empty),
        patch.object(Stream, "late", new=True),
        torch.no_grad(),
    ):
        put_on(held, _Fake(pins=True))
        found, small = held.network(rows), held.network(rows[:2])
        right = bool(torch.allclose(found, expected.network(rows), atol=1e-6))
        right &= bool(torch.allclose(small, expected.network(rows[:2]), atol=1e-6))
        joined = transfers.joined([rows, rows])
    put_on(_Held(), _Fake())  # the process's device is one that does not pin again
    if not right or Stream.queued:
        return "results were read before they had come"
    return "" if pinned == [rows.nbytes, -1] and joined.shape == (400, 200) else f"pinned: {pinned}"


class _Agent:
    """A loader and a runner as an agent has them, on the fake device."""

    def __init__(self, folder: Path, name: str) -> None:
        self.outcomes: Queue[Any] = Queue()
        self.answers: Queue[Any] = Queue()
        sources = CheckpointSources((folder,), runtimes=(TORCH,))
        outcome = lambda _, found: self.outcomes.put(found)  # noqa: E731
        self.loader = Loader("a", 1e6, 1, sources, outcome, watchdog=Watchdog(), device=_Fake())
        self.loader.start()
        self.spec = next(m for m in definition(folder, name).modules if "image" in m.inputs)
        self.runner = Runner(
            "a",
            16,
            lambda work, outputs, timing, _: self.answers.put((work.request, outputs, timing.batch)),
            lambda work, error: self.answers.put((work.request, error, 0)),
            lambda *_: True,
        )

    def load(self) -> Any:
        self.loader.load(self.spec)
        return self.outcomes.get(timeout=WAIT_S)

    def run(self, items: int) -> list[Any]:
        """Answers so many pictures that wait together, in the order of their requests."""
        output = next(iter(self.spec.outputs))
        hop = Hop(self.spec.id, "a", {"image": "input.image"}, (output,))
        for number in range(items):
            picture = sample("chelsea.jpg") + bytes([number])
            work = Work(bytes([number]) * 16, "t", "s", 1, 1, "inbox", {"image": picture}, {"s": hop}, 60_000.0)
            self.runner.submit(work, time.monotonic())
        self.runner.start()
        return sorted((self.answers.get(timeout=WAIT_S) for _ in range(items)), key=lambda answer: answer[0])


def full_memory(folder: Path, name: str) -> str:
    """Returns what is wrong with an agent whose device has no room for a module, and then for large batches."""
    agent = _Agent(folder, name)
    ROOM[:] = [100]
    refused = agent.load()
    if not isinstance(refused, NoCapacityError) or "fake out of memory" not in refused.detail:
        return f"a load without room gave {refused!r}"
    ROOM.clear()
    loaded = agent.load()
    if not isinstance(loaded, Loaded):
        return f"the next load failed: {loaded!r}"
    pixels = loaded.module.prepare({"image": sample("chelsea.jpg")})
    ROOM[:] = [2 * max(tensor.nbytes for tensor in pixels.values())]
    try:
        agent.runner.add(agent.spec.id, loaded.module)
        answers = agent.run(_ITEMS)
    finally:
        ROOM.clear()
        agent.runner.stop()
        agent.loader.stop()
    if wrong := [found for _, found, batch in answers if not batch]:
        return f"items failed: {wrong}"
    (output,) = answers[0][1]
    alone = loaded.module.run([pixels], frozenset({output}))[0][output]
    same = all(np.allclose(found[output], alone, atol=1e-5) for _, found, _ in answers)
    return "" if same else "other outputs in smaller batches"
