"""Rigs on both brokers, the seed of a run, and its length: short in `make test`, long in `make chaos`."""

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from s2m3.broker.servers.launch import BrokerKind
from tests.chaos import WAIT_S
from tests.chaos.rig import Rig

Build = Callable[..., Rig]
Say = Callable[[str], None]
Bar = Callable[[float], float]
Form = Literal["short", "long"]


@pytest.fixture(scope="session")
def form(request: pytest.FixtureRequest) -> Form:
    return "long" if request.config.getoption("--long") else "short"


@pytest.fixture(scope="session")
def minutes(request: pytest.FixtureRequest) -> float:
    """How long the soak takes."""
    found: float = request.config.getoption("--minutes")
    return found


@pytest.fixture
def bar(form: Form) -> Bar:
    """A time that holds in the long form; the short one runs on machines that do other things meanwhile."""
    return lambda seconds: seconds if form == "long" else WAIT_S


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What chance starts from: printed, and given again with --seed to replay a run."""
    given: int | None = request.config.getoption("--seed")
    chosen = secrets.randbelow(1_000_000) if given is None else given
    print(f"--seed {chosen}")  # noqa: T201  # pytest shows it with a failure
    return chosen


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  # to be replayed, not to be secret


@pytest.fixture
def build(kind: BrokerKind, tmp_path: Path, seed: int) -> Iterator[Build]:
    """Builds rigs on the kind of broker; they are stopped at the end of the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Rig:
            return stack.enter_context(Rig(kind, tmp_path, seed, **options))

        yield make


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a measured figure past pytest's capture."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}")  # noqa: T201  # figures are what these tests are for

    return tell
