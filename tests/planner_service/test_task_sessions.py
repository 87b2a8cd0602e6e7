"""Each task's own session at the broker: opened once, tried again where it failed, ended with the task."""

from collections.abc import Callable

import pytest

from s2m3.planner import task_sessions
from s2m3.planner.task_sessions import TaskSessions
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.settings import BrokerSettings
from tests.planner_service.site import make_facts
from tests.recorders import LinkFactory, ManualLoop, RecordedLink

SETTINGS = BrokerSettings(root="home")


class Site:
    """Sessions of the tasks of a cluster, without a broker."""

    def __init__(self, links: LinkFactory, *tasks: str) -> None:
        self.links = links
        self.loop = ManualLoop()
        self.cluster = make_facts()
        self.changes = 0
        for task in tasks:
            self.want(task)
        self.sessions = TaskSessions(SETTINGS, self.loop, self.cluster, self._changed)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes += 1

    def want(self, task: str) -> None:
        self.cluster.tasks[task] = TaskSpec(model="noop")

    def link(self, task: str) -> RecordedLink:
        """The newest link that was made with the task's client id."""
        return next(link for link in reversed(self.links.made) if link.client_id == f"s2m3-front:home:{task}")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    links = LinkFactory()
    monkeypatch.setattr(task_sessions, "Link", links)
    return lambda *tasks: Site(links, *tasks)


def test_a_session_is_opened_for_each_task_once(site: Callable[..., Site]) -> None:
    made = site("one", "two")
    made.sessions.open_all()
    made.sessions.open_all()
    assert sorted(link.client_id for link in made.links.made) == ["s2m3-front:home:one", "s2m3-front:home:two"]
    assert made.sessions.opening
    assert made.cluster.sessions == set()


def test_a_session_outlives_its_connection_and_keeps_what_comes_for_the_gateway(site: Callable[..., Site]) -> None:
    made = site("one")
    made.sessions.open_all()
    link = made.link("one")
    assert link.calls == ["begin"]
    assert link.filters == {"home/request/one": 1, "home/request/one/+": 1, "home/request/one/+/+": 1}
    options = {name: link.options[name] for name in ("session_expiry_s", "manual_ack", "receive_maximum", "reconnect")}
    assert options == {"session_expiry_s": 86_400, "manual_ack": True, "receive_maximum": 1, "reconnect": False}
    link.deliver("home/request/one", b"early")
    assert link.acknowledged == []


def test_an_open_session_is_left_to_the_gateway_and_the_planner_plans_again(site: Callable[..., Site]) -> None:
    made = site("one")
    made.sessions.open_all()
    made.link("one").connect()
    assert made.link("one").calls == ["begin", "stop 1"]
    assert made.cluster.sessions == {"one"}
    assert not made.sessions.opening
    made.loop.advance(0.0)
    assert made.changes == 1
    made.sessions.open_all()
    assert len(made.links.made) == 1


def test_a_session_that_could_not_be_opened_is_tried_again_after_a_second(site: Callable[..., Site]) -> None:
    made = site("one")
    made.sessions.open_all()
    made.link("one").lose()
    assert made.cluster.sessions == set()
    assert not made.sessions.opening
    made.loop.advance(0.9)
    assert made.changes == 0
    made.loop.advance(0.1)
    assert made.changes == 1
    made.sessions.open_all()
    made.link("one").connect()
    assert made.cluster.sessions == {"one"}
    assert made.sessions.refused is None


def test_a_refusal_is_kept_and_nothing_is_tried_again(site: Callable[..., Site]) -> None:
    made = site("one")
    made.sessions.open_all()
    refused = UnauthorisedError("another role")
    made.link("one").lose(refused)
    made.loop.advance(60.0)
    assert made.sessions.refused is refused
    assert (made.changes, made.cluster.sessions) == (0, set())


def test_a_task_that_was_removed_while_its_session_opened_has_none(site: Callable[..., Site]) -> None:
    made = site("one")
    made.sessions.open_all()
    del made.cluster.tasks["one"]
    made.sessions.close("one")
    made.loop.advance(1.0)
    ended = len(made.links.made)
    opening = made.links.made[0]
    opening.connect()
    made.loop.advance(60.0)
    assert (made.changes, made.cluster.sessions) == (0, set())
    assert [link.options.get("session_expiry_s") for link in made.links.made[ended:]] == [None]  # it is ended again


def test_a_removed_tasks_session_is_ended_a_second_later_by_a_clean_start_and_a_goodbye(
    site: Callable[..., Site],
) -> None:
    made = site("one")
    made.sessions.open_all()
    made.link("one").connect()
    del made.cluster.tasks["one"]
    made.sessions.close("one")
    assert made.cluster.sessions == set()
    made.loop.advance(0.9)
    assert len(made.links.made) == 1
    made.loop.advance(0.1)
    closing = made.link("one")
    assert len(made.links.made) == 2
    assert closing.options.get("session_expiry_s") is None
    assert closing.options["reconnect"] is False
    assert closing.calls == ["begin"]
    closing.connect()
    assert closing.calls == ["begin", "stop 1"]


def test_a_task_that_is_wanted_again_within_the_second_keeps_its_session(site: Callable[..., Site]) -> None:
    made = site("one")
    made.sessions.open_all()
    made.link("one").connect()
    del made.cluster.tasks["one"]
    made.sessions.close("one")
    made.want("one")
    made.loop.advance(60.0)
    assert len(made.links.made) == 1
    made.sessions.open_all()  # what the planner knows of it is forgotten: it is opened once more
    assert len(made.links.made) == 2
