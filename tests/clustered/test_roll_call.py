"""Two clustered brokers: in any order of starts all parties are seen, and callers at both brokers are answered."""

import itertools
import json
import threading

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.clustered.conftest import SpreadOut, SpreadSite
from tests.conftest import WAIT_S

#: Party -> the broker that it connects to.
_PARTIES = {"planner": 0, "a": 0, "b": 1}


def _start(site: SpreadSite, party: str) -> None:
    (site.start_planner if party == "planner" else lambda: site.start_agent(party))()


def _plain_answer(settings: BrokerSettings, task: str) -> object:
    """Asks as any MQTT device would, with the user name that the broker wants."""
    answers: list[object] = []
    answered, subscribed = threading.Event(), threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(settings.username, "s2m3")

    def on_message(_c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        answers.append(json.loads(message.payload).get("answer"))
        answered.set()

    client.on_message = on_message
    client.on_connect = lambda c, *_: c.subscribe(f"{settings.root}/response/{task}", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", settings.port)
    client.loop_start()
    try:
        assert subscribed.wait(WAIT_S)
        client.publish(f"{settings.root}/request/{task}", json.dumps({"inputs": {"left": 1, "right": 2}}), qos=1)
        assert answered.wait(WAIT_S)
    finally:
        client.disconnect()
        client.loop_stop()
    return answers[0]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("order", list(itertools.permutations(_PARTIES, 2)), ids=" before ".join)
def test_parties_started_in_any_order_at_two_brokers_are_all_seen_and_answer(
    spread: SpreadOut, order: tuple[str, str]
) -> None:
    site = spread({party: at for party, at in _PARTIES.items() if party != "planner"}, _PARTIES["planner"])
    for party in (*order, *(party for party in _PARTIES if party not in order)):
        with Site(site.at(_PARTIES[party])) as seen:
            _start(site, party)
            assert seen.wait(lambda s, party=party: _is_up(s, party), WAIT_S), site.log(party)  # type: ignore[misc]
    with Site(site.at(1)) as seen:
        add_task(seen, "noop", m.TaskSpec(model="noop"))
    for at in (0, 1):
        with Site(site.at(at), roll_call="test") as seen:
            assert seen.wait(lambda s: s.nodes.ready == {"a", "b"} and s.answers("noop"), WAIT_S), site.log("planner")
            assert seen.wait(lambda s: s.planner is not None and s.planner.state == "online", WAIT_S), site.log(
                "planner"
            )
        with Client(settings=site.at(at)) as client:
            assert client.ask("noop", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
        assert _plain_answer(site.at(at), "noop") == [1, 2]
    site.check()


def _is_up(site: Site, party: str) -> bool:
    if party == "planner":
        return site.planner is not None and site.planner.state == "online"
    return party in site.nodes.ready
