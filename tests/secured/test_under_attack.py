"""On the shipped secured Mosquitto: what a login of role device may send and must not do to the site."""

import json
import queue
import threading
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.client import Client
from s2m3.schemas import topics
from s2m3.schemas.definitions import Definition, shipped_catalogue
from s2m3.schemas.messages import NodeState, TaskSpec
from s2m3.schemas.specs import ModelSpec, StepSpec
from s2m3.schemas.wire.codec import CONTENT_TYPE, encode_work
from s2m3.schemas.wire.work import Hop, Work
from s2m3.snapshot import Site
from tests.broker.test_link import reached
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


def _forged(request: bytes, node: str, inbox: str) -> Outgoing:
    """Work of a head that answers somebody else's request, if the id is that of one."""
    topic = f"{ROOT}/client/{inbox}/in"
    route = {"head": Hop("noop-head", node, {"left": "input.left", "right": "input.right"}, ("echo",))}
    work = Work(request, "noop", "head", 1, 1, topic, {"left": "forged", "right": "forged"}, route, 9_000.0)
    payload, user = encode_work(work)
    module = topics.MODULE_IN.at(ROOT, module="noop-head", node=node)
    return Outgoing(module, payload, reply_to=topic, correlation=request, content_type=CONTENT_TYPE, user=user)


def test_31_a_client_that_sends_work_under_all_ids_it_is_shown_answers_nobody_elses_request(
    running: SecuredSite, shared_loop: Loop
) -> None:
    """An agent answers whoever the work says: what protects others is that no id under way can be known."""
    inbox, body = f"{ROOT}/client/alice/in", b'{"inputs": {"left": 1, "right": 2}}'
    answers: queue.Queue[Message] = queue.Queue()
    with (
        Site(running.settings("operator")) as seen,
        Client(settings=running.settings("operator")) as victim,
        linked(running, shared_loop, "alice") as attacker,
    ):
        listening = threading.Event()
        attacker.subscribe(inbox, answers.put, on_subscribed=listening.set)
        assert listening.wait(WAIT_S)
        node = seen.routes["noop"].steps["head"].replicas[0].node

        def right() -> None:
            assert victim.ask("noop", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]

        with others_answered(right):
            for number in range(40):
                correlation = b"%d" % number
                attacker.publish(Outgoing(f"{ROOT}/request/noop", body, reply_to=inbox, correlation=correlation))
                while (message := answers.get(timeout=WAIT_S)).correlation != correlation:
                    continue
                answer = json.loads(message.payload)
                assert answer["answer"] == [1, 2]
                shown = bytes.fromhex(answer["request"])
                for whose in ("node-a", "node-b", "operator", "alice"):
                    attacker.publish(_forged(shown, node, whose))
    assert "forged" not in "".join(running.told(login) for login in ("a", "b"))


@pytest.mark.parametrize("prefix", ["../../../../etc/ssl", "/etc/passwd"])
def test_42_a_task_whose_weights_lie_outside_is_loaded_by_nobody(running: SecuredSite, prefix: str) -> None:
    shipped = shipped_catalogue().modules["easy-vqa"]
    step = StepSpec(module="evil-part", inputs={name: f"input.{name}" for name in shipped.inputs})
    model = ModelSpec(id="evil", description="x", inputs=shipped.inputs, steps={"answer": step}, answer=["label"])
    spec = TaskSpec(
        model="evil",
        definition=Definition(model=model, modules=[shipped.model_copy(update={"prefix": prefix, "id": "evil-part"})]),
    )
    with Site(running.settings("operator")) as site, Client(settings=running.settings("alice")) as client:
        before = site.nodes.ready
        with others_answered(lambda: client.ask("noop", left=1, right=2, deadline_s=WAIT_S)):
            site.publish(topics.TASK, spec.encode(), task="evil")
            assert site.wait(lambda s: "evil" in s.routes and s.routes["evil"].error is not None, WAIT_S)
        error = site.routes["evil"].error
        assert error is not None
        assert error.code == "no_capacity", error
        assert not site.ready("evil")
        site.publish(topics.TASK, b"", task="evil")
        assert reached(lambda: "evil" not in site.routes)
        assert site.nodes.ready >= before
