"""How many gateways the limit of open files allows, and what an agent does with a plan that names more."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import cast

import pytest

from s2m3.agents.gateway.gateway import Gateway
from s2m3.agents.gateway.gateways import Gateways
from s2m3.schemas.errors import UnauthorisedError

_ASKED = """
import json, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (48, {hard}))
from s2m3.agents.open_files import most_gateways, raise_limit
before = most_gateways()
raise_limit()
print(json.dumps([before, most_gateways(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
"""


def _asked(hard: int) -> tuple[int, int, int]:
    script = [sys.executable, "-c", _ASKED.format(hard=hard)]
    before, after, soft = json.loads(subprocess.run(script, capture_output=True, check=True, timeout=60).stdout)
    return before, after, soft


def test_40_as_many_gateways_as_the_open_files_allow_beside_what_else_is_open() -> None:
    before, after, soft = _asked(64)
    assert 0 < before < 48 - 20
    assert (after, soft) == (before + 16, 64)


def test_40_where_there_is_no_room_there_is_no_gateway() -> None:
    script = _ASKED.format(hard=48).replace("(48,", "(20,").replace(" 48)", " 20)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)[:2] == [0, 0]


@dataclass
class _Task:
    name: str
    calls: list[str]
    refused: UnauthorisedError | None = None

    def connect(self) -> None:
        self.calls.append(f"connect {self.name}")

    def stand_by(self, gateway: str) -> None:
        self.calls.append(f"stand by {self.name} for {gateway}")

    def close(self) -> None:
        self.calls.append(f"close {self.name}")


@dataclass
class Made:
    calls: list[str] = field(default_factory=list)
    tasks: dict[str, _Task] = field(default_factory=dict)

    def make(self, name: str) -> Gateway:
        self.tasks[name] = _Task(name, self.calls)
        return cast("Gateway", self.tasks[name])

    def took(self) -> list[str]:
        calls, self.calls[:] = list(self.calls), []
        return calls


@pytest.mark.parametrize("most", [2, None])
def test_40_of_a_plan_that_names_too_many_the_first_are_taken(most: int | None) -> None:
    made = Made()
    gateways = Gateways("a", made.make, most)
    gateways.follow(["x", "y", "z"], {})
    assert made.took() == ["connect x", "connect y"] + ["connect z"] * (most is None)


def test_40_one_that_is_taken_from_the_plan_makes_room_for_the_next() -> None:
    made = Made()
    gateways = Gateways("a", made.make, 2)
    gateways.follow(["x", "y", "z"], {})
    made.took()
    gateways.follow(["y", "z"], {})
    assert made.took() == ["close x", "connect y", "connect z"]


def test_a_deputy_becomes_the_gateway_and_a_gateway_the_deputy_without_being_made_anew() -> None:
    made = Made()
    gateways = Gateways("a", made.make, 2)
    gateways.follow(["x"], {"y": "b", "z": "c"})
    assert made.took() == ["connect x", "stand by y for b", "stand by z for c"]
    gateways.follow(["y"], {"x": "b", "y": "no other", "z": "b", "w": "b"})
    assert made.took() == ["connect y", "stand by x for b", "stand by z for b"]  # two at most
    gateways.follow([], {"x": "b"})
    assert made.took() == ["close y", "close z", "stand by x for b"]


def test_a_refusal_of_one_session_is_told() -> None:
    made = Made()
    gateways = Gateways("a", made.make, None)
    gateways.follow(["x", "y"], {})
    assert gateways.refused is None
    made.tasks["y"].refused = UnauthorisedError("another role")
    assert gateways.refused is made.tasks["y"].refused
