"""On the shipped secured Mosquitto: what a login of role device may send and must not do to the site."""

import json
import queue
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.broker.event_loop import Loop
from s2m3.client import Client
from s2m3.schemas.messages import NodeState
from tests.conftest import WAIT_S
from tests.others import others_answered
from tests.secured.secured import SecuredSite, linked
from tests.secured.test_roles import ROOT, Password
from tests.system.plain import reply_to


@pytest.mark.parametrize(
    "topic",
    ["/".join("a" * 300), "/" * 300, "a" * 60_000, f"{ROOT}/response/doorbell", f"{ROOT}/plan/a"],
    ids=["levels", "empty-levels", "long", "of-another-task", "plan"],
)
def test_29_30_a_response_topic_takes_no_node_down_and_is_refused_to_its_sender(
    running: SecuredSite, shared_loop: Loop, topic: str
) -> None:
    """Mosquitto takes a Response Topic of 300 levels, and cuts the connection of the gateway that answers there."""
    states: queue.Queue[str] = queue.Queue()
    device = Password(running, "bell", [f"{ROOT}/response/noop"], version=paho.MQTTv5)
    try:
        with linked(running, shared_loop, "wall") as viewer, Client(settings=running.settings("alice")) as client:
            viewer.subscribe(
                f"{ROOT}/node/+/state", lambda message: states.put(NodeState.model_validate_json(message.payload).state)
            )
            body = json.dumps({"transaction": 7, "inputs": {"left": 1, "right": 2}})
            with others_answered(lambda: client.ask("noop", left=1, right=2, deadline_s=WAIT_S)):
                device.client.publish(f"{ROOT}/request/noop", body, qos=1, properties=reply_to(topic, b"1"))
                answer: dict[str, Any] = json.loads(device.messages.get(timeout=WAIT_S).payload)
            assert (answer["status"], answer["transaction"]) == ("error", 7)
            assert answer["error"]["code"] == "bad_input"
            assert client.ask("noop", left=1, right=2).attempts == 1
        assert "lost" not in list(states.queue)
    finally:
        device.close()
