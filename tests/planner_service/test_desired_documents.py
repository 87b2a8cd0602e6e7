"""Nodes' settings are kept as tasks are: said again to a broker that forgot them, gone if cleared meanwhile."""

from typing import Any

from s2m3.planner.desired_documents import DesiredDocuments
from s2m3.schemas import topics
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.sleep import NodeSettings
from tests.recorders import ManualLoop, RecordedLink

TOPIC = "home/node/desktop/settings"
#: A newer release has a key that this one does not know.
SAID = b'{"prefer": 2.0, "wake": "52:54:00:12:34:56", "colour": "blue"}'


class Kept:
    """Settings of nodes that come over a recorded link."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []
        self.probes: list[Any] = []
        self.heard: list[tuple[str, NodeSettings | None]] = []
        self.link = RecordedLink(BrokerSettings(root="home"), "planner", ManualLoop())
        self.documents = DesiredDocuments(
            self.link,  # type: ignore[arg-type]
            topics.NODE_SETTINGS,
            self._say,
            lambda node, settings: self.heard.append((node, settings)),
            probe=lambda on_back: self.probes.append(on_back),  # noqa: PLW0108  # the list is made first
        )
        self.documents.start()
        self.link.deliver(TOPIC, SAID, retain=True)

    def _say(self, topic: str, payload: bytes) -> bool:
        self.said.append((topic, payload))
        return True


def test_they_are_read_and_said_again_as_they_were_written() -> None:
    kept = Kept()
    assert kept.heard == [("desktop", NodeSettings(prefer=2.0, wake="52:54:00:12:34:56"))]
    kept.documents.repeat()
    assert kept.said == [(TOPIC, SAID)]


def test_what_was_cleared_while_the_connection_was_down_is_gone() -> None:
    kept = Kept()
    kept.documents.on_connected()
    assert not kept.documents.is_certain()
    assert TOPIC in kept.link.filters  # asked for by name
    kept.probes.pop()()
    assert kept.documents.is_certain()
    assert TOPIC not in kept.link.filters
    kept.documents.drop_removed()
    assert kept.heard[1:] == [("desktop", None)]
    kept.documents.repeat()
    assert kept.said == []


def test_what_comes_again_after_a_reconnect_stays() -> None:
    kept = Kept()
    kept.documents.on_connected()
    kept.link.deliver(TOPIC, SAID, retain=True)
    assert kept.documents.is_certain()
    kept.documents.drop_removed()
    assert (None not in [settings for _, settings in kept.heard], kept.said) == (True, [])


def test_what_waits_in_a_full_queue_is_not_said_twice() -> None:
    kept = Kept()
    kept.link.has_room = False
    kept.documents.repeat()
    kept.documents.repeat()
    assert kept.said == [(TOPIC, SAID)]
    kept.link.deliver(TOPIC, SAID)  # it came through
    kept.documents.repeat()
    assert kept.said == [(TOPIC, SAID)] * 2
    kept.link.has_room = True
    kept.documents.repeat()
    assert kept.said == [(TOPIC, SAID)] * 3


def test_what_comes_when_it_is_asked_for_by_name_stays() -> None:
    kept = Kept()
    kept.documents.on_connected()
    assert not kept.documents.is_certain()
    kept.link.deliver(TOPIC, SAID, retain=True)
    kept.probes.pop()()
    assert kept.documents.is_certain()
    kept.documents.drop_removed()
    assert None not in [settings for _, settings in kept.heard]


def test_another_connection_has_to_be_asked_again() -> None:
    kept = Kept()
    kept.documents.on_connected()
    assert not kept.documents.is_certain()
    early = kept.probes.pop()
    kept.documents.on_connected()
    assert TOPIC not in kept.link.filters
    assert not kept.documents.is_certain()
    early()
    assert not kept.documents.is_certain()
    kept.probes.pop()()
    assert kept.documents.is_certain()


def test_many_are_asked_for_some_at_a_time() -> None:
    kept = Kept()
    names = [f"n{number}" for number in range(120)]
    asked = []
    while not kept.documents.has_asked_for(names):
        assert not kept.documents.has_asked_for(names)  # meanwhile nothing more is asked
        asked.append(len(kept.link.filters) - 1)
        kept.probes.pop()()
    assert (asked, kept.probes) == ([50, 50, 20], [])
