"""Who waits while another is at work, and with which epoch it takes over: on real brokers, whose retained states and
wills are what it stands on."""

import threading
import time
from collections.abc import Callable

import pytest

from s2m3.broker import leader_election
from s2m3.broker.event_loop import Loop
from s2m3.broker.leader_election import PLANNER, Election, next_epoch, wait_for_leadership
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing, Will
from s2m3.schemas.messages import PlannerState
from s2m3.schemas.settings import BrokerSettings
from tests.conftest import WAIT_S

#: One that no test is quiet for long enough to find silent, and one that falls silent at once.
PATIENT = Election(PLANNER.state, PLANNER.beat, silent_s=600.0)
HASTY = Election(PLANNER.state, PLANNER.beat, silent_s=0.0)


class Leader:
    """A planner that says what the test has it say."""

    def __init__(self, settings: BrokerSettings, loop: Loop, epoch: int) -> None:
        will = Will(PLANNER.state.at(settings.root), PlannerState(state="offline", epoch=epoch).encode())
        self._link = Link(settings, f"s2m3-leader-{settings.root.replace('/', '-')}-{epoch}", loop, will=will)
        self._link.start()

    def say(self, state: str, epoch: int) -> None:
        document = PlannerState.model_validate({"state": state, "epoch": epoch})
        taken = threading.Event()
        message = Outgoing(PLANNER.state.at(self._link.root), document.encode(), retain=True)
        self._link.publish(message, on_delivered=taken.set)
        assert taken.wait(WAIT_S)

    def crash(self) -> None:
        self._link.abort()

    def leave(self) -> None:
        self._link.stop()


class Standby:
    """Waits for leadership in a thread of its own."""

    def __init__(self, election: Election, settings: BrokerSettings) -> None:
        self.stopping = threading.Event()
        self.epoch: int | None = None
        self._thread = threading.Thread(target=self._wait, args=(election, settings), daemon=True)
        self._thread.start()

    def _wait(self, election: Election, settings: BrokerSettings) -> None:
        self.epoch = wait_for_leadership(election, settings, self.stopping)

    def takes_over(self) -> int:
        self._thread.join(WAIT_S)
        assert self.epoch is not None
        return self.epoch

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


@pytest.fixture
def standing_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Waits until somebody has said that it stands by."""
    said = threading.Event()
    info = leader_election._log.info  # noqa: SLF001  # the log is how an operator sees it too

    def note(event: str, **fields: object) -> None:
        info(event, **fields)
        if event == "standing_by":
            said.set()

    monkeypatch.setattr(leader_election._log, "info", note, raising=False)  # noqa: SLF001

    def wait() -> None:
        assert said.wait(WAIT_S)
        said.clear()

    return wait


def test_where_nobody_was_ever_at_work_the_epoch_seen_is_0(settings: BrokerSettings) -> None:
    assert wait_for_leadership(PATIENT, settings, threading.Event()) == 0


def test_one_that_said_goodbye_is_succeeded_with_its_epoch(settings: BrokerSettings, loop: Loop) -> None:
    leader = Leader(settings, loop, 7)
    leader.say("offline", 7)
    leader.leave()
    assert wait_for_leadership(PATIENT, settings, threading.Event()) == 7


def test_whoever_comes_second_waits_until_the_first_one_leaves(
    settings: BrokerSettings, loop: Loop, standing_by: Callable[[], None]
) -> None:
    leader = Leader(settings, loop, 7)
    leader.say("online", 7)
    second = Standby(PATIENT, settings)
    standing_by()
    assert second.waits
    leader.say("offline", 7)
    assert second.takes_over() == 7
    leader.leave()


def test_the_will_of_one_that_crashed_lets_the_second_in(
    settings: BrokerSettings, loop: Loop, standing_by: Callable[[], None]
) -> None:
    leader = Leader(settings, loop, 7)
    leader.say("online", 7)
    second = Standby(PATIENT, settings)
    standing_by()
    leader.crash()
    assert second.takes_over() == 7


def test_a_newer_one_is_waited_for_and_the_word_of_an_older_one_does_not_count(
    settings: BrokerSettings, loop: Loop, standing_by: Callable[[], None]
) -> None:
    leader = Leader(settings, loop, 8)
    leader.say("online", 7)
    second = Standby(PATIENT, settings)
    standing_by()
    leader.say("online", 8)
    standing_by()
    leader.say("offline", 7)  # an old will that came late
    leader.say("online", 9)
    standing_by()
    assert second.waits
    leader.say("offline", 9)
    assert second.takes_over() == 9
    leader.leave()


def test_one_that_falls_silent_is_succeeded_although_it_says_that_it_is_online(
    settings: BrokerSettings, loop: Loop
) -> None:
    leader = Leader(settings, loop, 7)
    leader.say("online", 7)
    assert wait_for_leadership(HASTY, settings, threading.Event()) == 7
    leader.leave()


def test_whoever_is_told_to_stop_waits_no_longer(
    settings: BrokerSettings, loop: Loop, standing_by: Callable[[], None]
) -> None:
    leader = Leader(settings, loop, 7)
    leader.say("online", 7)
    second = Standby(PATIENT, settings)
    standing_by()
    second.stopping.set()
    assert second.takes_over() == 7
    leader.leave()


def test_an_epoch_is_above_the_newest_seen_and_above_the_clock() -> None:
    before = int(time.time() * 1000)
    drawn = {next_epoch(0) for _ in range(50)}
    after = int(time.time() * 1000)
    assert all(before <= epoch < after + 1000 for epoch in drawn)
    assert len(drawn) > 1  # two planners that start at once do not have the same
    far = after + 10_000_000
    assert next_epoch(far) == far + 1
