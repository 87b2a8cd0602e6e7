"""ejabberd sends a client one QoS 1 message at a time, and lets nobody in without a user name: neither shows."""

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
from tests.clustered.conftest import SpreadOut
from tests.conftest import WAIT_S
from tests.system.ranked import definition

_BURST = 60


def _asked_at_once(settings: BrokerSettings) -> list[dict[str, object]]:
    """Publishes many plain requests in one go; returns the answers."""
    answers: list[dict[str, object]] = []
    all_came, subscribed = threading.Event(), threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("device", "any")

    def on_message(_c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        answers.append(json.loads(message.payload))
        if len({str(answer["transaction"]) for answer in answers}) == _BURST:
            all_came.set()

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_connect = lambda c, *_: c.subscribe(f"{settings.root}/response/slow", qos=1)
    client.connect("127.0.0.1", settings.port)
    client.loop_start()
    try:
        assert subscribed.wait(WAIT_S)
        for number in range(_BURST):
            request = {"transaction": number, "inputs": {"data": number}}
            client.publish(f"{settings.root}/request/slow", json.dumps(request), qos=1)
        assert all_came.wait(WAIT_S), len(answers)
    finally:
        client.disconnect()
        client.loop_stop()
    return answers


@pytest.mark.long
@pytest.mark.timeout(600)
def test_plain_requests_overlap_and_a_user_name_is_given_by_default(spread: SpreadOut) -> None:
    site = spread({"a": 0}, 0)
    site.environment.pop("S2M3_USERNAME")
    site.environment.pop("S2M3_PASSWORD")
    nameless = site.at(0).model_copy(update={"username": None, "password": None})
    site.start_agent("a")
    site.start_planner()
    with Site(nameless, roll_call="test") as seen:
        made = definition("slow")
        slow = made.modules[0].model_copy(update={"config": {"sleep_ms": 20.0}})
        made = made.model_copy(update={"modules": [slow]})
        add_task(seen, "slow", m.TaskSpec(model="slow", definition=made))
        assert seen.wait(lambda s: s.answers("slow"), WAIT_S), site.log("planner")
    with Client(settings=nameless) as client:
        assert client.ask("slow", data=1, deadline_s=WAIT_S).value == 1
    answers = _asked_at_once(nameless)
    assert all(answer["answer"] == answer["transaction"] for answer in answers)
    assert len(answers) == _BURST  # none twice
    batches = [step["batch"] for answer in answers for step in answer["steps"].values()]  # type: ignore[attr-defined]
    assert max(batches) > 1  # one at a time would never meet another
