"""Who plans, as the broker says it over a connection of its own: asked anew each time, answered once."""

from dataclasses import dataclass, field

import pytest

from s2m3.planner import planner_observer
from s2m3.planner.planner_observer import PlannerObserver
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.messages import PlannerState
from s2m3.schemas.settings import BrokerSettings
from tests.recorders import LinkFactory, ManualLoop

TOPIC = "home/planner/state"


@dataclass
class Observed:
    """An observer without a broker, and what it told."""

    links: LinkFactory
    loop: ManualLoop = field(default_factory=ManualLoop)
    heard: list[int] = field(default_factory=list)
    answers: int = 0

    def __post_init__(self) -> None:
        settings = BrokerSettings(root="home")
        take = lambda state: self.heard.append(state.epoch)  # noqa: E731
        self.observer = PlannerObserver(settings, self.loop, take)  # type: ignore[arg-type]

    def ask(self) -> None:
        self.observer.ask(self._answered)

    def _answered(self) -> None:
        self.answers += 1

    def says(self, epoch: int, link: int = -1) -> None:
        self.links.made[link].deliver(TOPIC, PlannerState(state="online", epoch=epoch).encode())


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Observed:
    links = LinkFactory()
    monkeypatch.setattr(planner_observer, "Link", links)
    return Observed(links)


def test_a_retained_state_is_heard_at_once_and_the_question_answered_a_quarter_of_a_second_later(
    observed: Observed,
) -> None:
    observed.ask()
    observed.links.made[0].connect()
    observed.says(7)
    assert (observed.heard, observed.answers) == ([7], 0)
    observed.loop.advance(0.24)
    assert observed.answers == 0
    observed.loop.advance(0.02)
    assert observed.answers == 1


def test_that_the_broker_remembers_no_planner_is_the_answer_half_a_second_after_the_confirmation(
    observed: Observed,
) -> None:
    observed.ask()
    observed.loop.advance(60.0)
    assert observed.answers == 0  # the broker is away
    observed.links.made[0].connect()
    observed.loop.advance(0.49)
    assert observed.answers == 0
    observed.loop.advance(0.02)
    assert (observed.heard, observed.answers) == ([], 1)


def test_a_question_is_answered_once_and_what_comes_later_is_still_heard(observed: Observed) -> None:
    observed.ask()
    observed.links.made[0].connect()
    observed.says(7)
    observed.loop.advance(1.0)
    observed.says(8)
    observed.loop.advance(1.0)
    assert (observed.heard, observed.answers) == ([7, 8], 1)


def test_a_state_that_was_cleared_says_nothing_of_a_planner(observed: Observed) -> None:
    observed.ask()
    observed.links.made[0].deliver(TOPIC, b"")
    observed.loop.advance(1.0)
    assert (observed.heard, observed.answers) == ([], 0)


def test_each_question_is_asked_over_a_new_connection_under_a_new_name(observed: Observed) -> None:
    observed.ask()
    observed.ask()
    first, second = observed.links.made
    assert first.calls == ["begin", "stop 5"]
    assert second.calls == ["begin"]
    assert first.client_id != second.client_id
    assert first.client_id.startswith("s2m3-standby-")
    assert second.filters == {TOPIC: 1}


def test_what_an_earlier_connection_says_answers_no_later_question(observed: Observed) -> None:
    observed.ask()
    observed.links.made[0].connect()
    observed.says(7)
    observed.ask()
    observed.says(9, link=0)
    observed.loop.advance(60.0)
    assert (observed.heard, observed.answers) == ([7], 0)
    observed.says(8)
    observed.loop.advance(1.0)
    assert (observed.heard, observed.answers) == ([7, 8], 1)


def test_after_a_stop_nothing_is_heard_and_no_question_answered(observed: Observed) -> None:
    observed.ask()
    observed.links.made[0].connect()
    observed.observer.stop()
    observed.says(7)
    observed.loop.advance(60.0)
    assert (observed.heard, observed.answers) == ([], 0)
    observed.observer.stop()
    assert observed.links.made[0].calls == ["begin", "stop 5"]


def test_a_refusal_of_the_connection_is_the_observers(observed: Observed) -> None:
    assert observed.observer.refused is None
    observed.ask()
    assert observed.observer.refused is None
    observed.links.made[0].refused = UnauthorisedError("another role")
    assert observed.observer.refused is observed.links.made[0].refused
