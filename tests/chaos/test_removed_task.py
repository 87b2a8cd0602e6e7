"""What was removed while the planner was away stays removed: it believes a broker that has not forgotten all."""

import paho.mqtt.client as paho
import pytest

from s2m3.client import Client
from s2m3.commands.status import problems
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import UnknownTaskError
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build
from tests.chaos.proxy import Proxy
from tests.chaos.rig import Rig
from tests.system.plain import PlainCaller


def _cut_off(rig: Rig, site: Site) -> None:
    """The planner's connection goes, and none comes up."""
    rig.proxies["planner"].cut()
    assert site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S), rig.log("planner")


def _restored(rig: Rig, site: Site) -> None:
    rig.proxies["planner"].mend()
    assert site.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S), rig.log("planner")


@pytest.mark.short_on("mosquitto")
def test_a_task_removed_while_the_planner_was_away_stays_removed(build: Build) -> None:
    rig = build(behind=("planner",))
    with Site(rig.settings) as site, Client(settings=rig.settings) as client:
        rig.add(site, "stays", m.TaskSpec(model="noop"))
        rig.add(site, "goes", m.TaskSpec(model="noop"))
        _cut_off(rig, site)
        site.publish(topics.TASK, b"", task="goes")
        _restored(rig, site)
        assert site.wait(lambda s: "goes" not in s.routes, WAIT_S), rig.log("planner")
        assert site.wait(lambda s: not any("goes" in plan.gateways for plan in s.plans.values()), WAIT_S)
        assert client.ask("stays", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
        with Site(rig.settings) as newcomer:
            assert set(newcomer.tasks) == {"stays"}
    assert "broker_forgot_everything" not in rig.log("planner")


@pytest.mark.short_on("mosquitto")
def test_a_node_forgotten_while_the_planner_was_away_stays_forgotten(build: Build) -> None:
    rig = build(behind=("planner",), keepalive_s=1)
    with Site(rig.settings) as site:
        assert site.wait(lambda s: s.nodes.ready == set(s.plans) == {"a", "b", "c"}, WAIT_S), rig.log("planner")
        _cut_off(rig, site)
        rig.kill("c")
        assert site.wait(lambda s: "c" in s.nodes.lost, WAIT_S)
        for left in (topics.NODE_STATE, topics.NODE_REPORTED, topics.NODE_PROFILE):
            site.publish(left, b"", node="c")
        _restored(rig, site)
        assert site.wait(lambda s: "c" not in s.plans, WAIT_S), rig.log("planner")
        with Site(rig.settings) as newcomer:
            assert (newcomer.nodes.state("c"), set(newcomer.plans)) == (None, {"a", "b"})


@pytest.mark.long
@pytest.mark.parametrize("way", ["frozen", "ended"])
def test_a_task_removed_while_the_planner_was_frozen_or_ended_stays_removed(build: Build, way: str) -> None:
    rig = build()
    with Site(rig.settings) as site:
        rig.add(site, "stays", m.TaskSpec(model="noop"))
        rig.add(site, "goes", m.TaskSpec(model="noop"))
        if way == "frozen":
            rig.freeze("planner")
        else:
            rig.processes["planner"].terminate()
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
        site.publish(topics.TASK, b"", task="goes")
        if way == "frozen":
            rig.thaw("planner")
        else:
            rig.start_planner()
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S)
        assert site.wait(lambda s: "goes" not in s.routes and "goes" not in s.tasks, WAIT_S), rig.log("planner")
        assert site.wait(lambda s: not any("goes" in plan.gateways for plan in s.plans.values()), WAIT_S)
        assert site.wait(lambda s: s.answers("stays"), WAIT_S)
        assert not site.wait(lambda s: "goes" in s.tasks or "goes" in s.routes, 3.0)  # nor does it come back
        with Site(rig.settings, roll_call="test") as newcomer:
            assert set(newcomer.tasks) == {"stays"}


@pytest.mark.short_on("mosquitto")
def test_a_task_removed_while_no_planner_ran_leaves_no_session_that_collects_requests(build: Build) -> None:
    rig = build()
    request, response = (f"{rig.settings.root}/{name}/goes" for name in ("request", "response"))
    with Site(rig.settings) as site, PlainCaller(rig.broker.port_v3, paho.MQTTv311, (response,)) as caller:
        rig.add(site, "goes", m.TaskSpec(model="noop"))
        rig.processes["planner"].terminate()
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
        site.publish(topics.TASK, b"", task="goes")
        rig.start_planner()
        assert site.wait(lambda s: "goes" not in s.routes and set(s.plans) == {"a", "b", "c"}, WAIT_S)
        caller.send(request, b'{"transaction": 1, "inputs": {"left": 1, "right": 2}}')
        refused = caller.answer()
        assert (refused["transaction"], refused["error"]["code"]) == (1, "unknown_task")
        rig.add(site, "goes", m.TaskSpec(model="noop"))
        caller.send(request, b'{"transaction": 2, "inputs": {"left": 3, "right": 4}}')
        answer = caller.answer()
    assert answer["transaction"] == 2, answer  # and not the first one, once more


@pytest.mark.short_on("embedded")
def test_a_task_changed_and_one_added_while_the_planner_was_away_are_taken_up(build: Build) -> None:
    rig = build(behind=("planner",))
    with Site(rig.settings) as site:
        rig.add(site, "changed", m.TaskSpec(model="noop", deadline_s=10))
        _cut_off(rig, site)
        site.publish(topics.TASK, m.TaskSpec(model="noop", deadline_s=20).encode(), task="changed")
        site.publish(topics.TASK, m.TaskSpec(model="noop").encode(), task="added")
        _restored(rig, site)
        assert site.wait(lambda s: s.ready("added") and s.routes["changed"].deadline_s == 20, WAIT_S), rig.log(
            "planner"
        )
        assert site.tasks["changed"].deadline_s == 20


@pytest.mark.short_on("mosquitto")
def test_what_a_task_says_in_keys_of_a_newer_release_outlives_a_broker_that_forgot_everything(build: Build) -> None:
    rig = build()
    said = b'{"model": "noop", "deadline_s": 30, "voice": {"of": "a newer release"}}'
    heard: list[bytes] = []
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        site.publish(topics.TASK, said, task="noop")
        assert site.wait(lambda s: s.tasks["noop"].deadline_s == 30 and s.ready("noop"), WAIT_S)
        rig.restart_broker()
        with Site(rig.settings) as newcomer:
            newcomer.link.subscribe(
                topics.TASK.at(rig.settings.root, task="noop"), lambda msg: heard.append(msg.payload)
            )
            assert newcomer.wait(lambda s: bool(heard) and s.ready("noop"), WAIT_S), rig.log("planner")
    assert set(heard) == {said}


def test_tasks_whose_documents_come_late_after_a_reconnect_stay(build: Build) -> None:
    """The cable lets one document pass in two seconds: a pause is no sign that the others were removed."""
    rig = build(behind=("planner",), keepalive_s=60)
    said = b'{"model": "noop", "voice": "%s"}' % (b"x" * 8_000)
    names = ("one", "two", "goes")
    with Site(rig.settings) as site:
        for name in names:
            rig.add(site, name, m.TaskSpec(model="noop"))
            site.publish(topics.TASK, said, task=name)
        _cut_off(rig, site)
        site.publish(topics.TASK, b"", task="goes")
        rig.proxies["planner"].throttle(4_000)
        assert site.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S), rig.log("planner")
        rig.proxies["planner"].mend()
        assert site.wait(lambda s: "goes" not in s.routes, WAIT_S), rig.log("planner")
        assert site.wait(lambda s: s.answers("one") and s.answers("two"), WAIT_S), rig.log("planner")
    removed = [line for line in rig.log("planner").splitlines() if "task_removed" in line]
    assert len(removed) == 1, removed
    assert "goes" in removed[0]


def test_a_task_removed_while_a_requester_was_away_is_unknown_to_it(build: Build) -> None:
    rig = build()
    with Proxy(rig.broker.port) as cable, Site(rig.settings) as site:
        rig.add(site, "stays", m.TaskSpec(model="noop"))
        rig.add(site, "goes", m.TaskSpec(model="noop"))
        with Client(settings=rig.settings.model_copy(update={"port": cable.port})) as client:
            assert client.ask("goes", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
            assert client.tasks().keys() == {"stays", "goes"}
            cable.cut()
            site.publish(topics.TASK, b"", task="goes")
            assert site.wait(lambda s: "goes" not in s.routes, WAIT_S), rig.log("planner")
            cable.mend()
            assert site.wait(lambda _: client.tasks().keys() == {"stays"}, WAIT_S)
            with pytest.raises(UnknownTaskError):
                client.ask("goes", left=1, right=2, deadline_s=WAIT_S)
            assert client.ask("stays", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
            rig.add(site, "goes", m.TaskSpec(model="noop"))
            assert client.ask("goes", left=3, right=4, deadline_s=WAIT_S).value == [3, 4]


def test_a_view_forgets_what_was_removed_while_its_connection_was_down(build: Build) -> None:
    rig = build()
    with Proxy(rig.broker.port) as proxy, Site(rig.settings) as near:
        for task in ("stays", "goes"):
            rig.add(near, task, m.TaskSpec(model="noop"))
        behind = rig.settings.model_copy(update={"port": proxy.port})
        with Site(behind, roll_call="watch") as view:
            assert view.wait(lambda s: s.ready("stays") and s.ready("goes"), WAIT_S)
            proxy.cut()
            assert view.wait(lambda s: not s.link.connected, WAIT_S)
            assert problems(view)[0].plain == "no connection to the broker; this is what was known"
            near.publish(topics.TASK, b"", task="goes")
            rig.kill("c")
            assert near.wait(lambda s: "goes" not in s.routes and "c" in s.nodes.lost, WAIT_S), rig.log("planner")
            near.publish(topics.NODE_STATE, b"", node="c")
            proxy.mend()
            assert view.wait(lambda s: "goes" not in s.tasks and "goes" not in s.routes, WAIT_S)
            assert view.wait(lambda s: s.nodes.present | s.nodes.lost == {"a", "b"}, WAIT_S)
            assert view.ready("stays")
            assert set(view.tasks) == {"stays"}
            assert view.link.connected
