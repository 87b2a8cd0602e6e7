"""Item 34: a device has the broker retain megabytes of requests: they are cleared, and others are answered."""

import json
import threading
from itertools import count

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from tests.broker.test_link import heard, reached
from tests.conftest import WAIT_S
from tests.others import others_answered
from tests.secured.secured import SecuredSite, linked, published

ROOT = "s2m3/v1"
MEGABYTES = 40


def _retained(link: Link) -> set[str]:
    """What the broker retains of plain requests: all has come when a message that was sent after the SUBACK has."""
    found: set[str] = set()
    complete = threading.Event()

    def on_message(message: Message) -> None:
        if message.retain and message.payload:
            found.add(message.topic)

    filters = [f"{ROOT}/request/{levels}" for levels in ("+", "+/+", "+/+/+")]
    for topic_filter in filters:
        link.subscribe(topic_filter, on_message)
    link.subscribe(f"{ROOT}/client/node-b/in", lambda _: complete.set())
    published(link, f"{ROOT}/client/node-b/in", b"complete")
    assert complete.wait(WAIT_S)
    for topic_filter in filters:
        link.unsubscribe(topic_filter)
    return found


def test_34_retained_requests_of_a_device_are_cleared_and_others_are_answered(
    running: SecuredSite, shared_loop: Loop
) -> None:
    before = len(running.told("planner"))
    with (
        linked(running, shared_loop, "cam") as attacker,
        linked(running, shared_loop, "bell") as asking,
        linked(running, shared_loop, "b") as looking,
    ):
        answers = heard(asking, f"{ROOT}/response/noop")

        def answered(transaction: int) -> bool:
            request = {"transaction": transaction, "inputs": {"left": 1, "right": 2}}
            published(asking, f"{ROOT}/request/noop", json.dumps(request).encode())
            while json.loads(answers.get(timeout=WAIT_S).payload).get("transaction") != transaction:
                continue
            return True

        assert answered(0)
        numbers = count(1_000)
        with others_answered(lambda: answered(next(numbers))):
            for number in range(MEGABYTES):  # to a task that there is, and to others; every name is new
                task = ("noop", "nobody")[number % 2]
                attacker.publish(Outgoing(f"{ROOT}/request/{task}/x{number}", bytes(1_000_000), retain=True))
            attacker.publish(Outgoing(f"{ROOT}/request/nobody", b"{}", retain=True))
            attacker.publish(Outgoing(f"{ROOT}/request/nobody/image/7", b"{}", retain=True))
        assert answered(1)
        assert reached(lambda: "retained_requests_cleared" in running.told("planner")[before:])
        assert reached(lambda: _retained(looking) == set())
        assert answered(2)
