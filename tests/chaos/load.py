"""Load that keeps a history: direct requests as a Client's, plain ones as mosquitto_pub's, at a set pace."""

import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.schemas import topics
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.plain import plain_inputs, plain_value
from s2m3.schemas.wire.values import Value
from tests.chaos import WAIT_S
from tests.chaos.history import History

_RETURN_S = 1


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the only right answer."""

    task: str
    inputs: dict[str, Value]
    expected: Value
    deadline_s: float = 30.0


def echo(number: int, task: str = "noop", deadline_s: float = 30.0) -> Question:
    """A question to the no-op family: its answer is the number, twice."""
    return Question(task, {"left": number, "right": number}, [number, number], deadline_s)


class Direct:
    """Asks as a Client does. Under it is a Dispatcher in place of s2m3.Client: a future would hide a second answer."""

    def __init__(self, settings: BrokerSettings, history: History, name: str = "chaos") -> None:
        self.history = history
        self._loop = Loop(name)
        self._link = Link(settings, f"s2m3-client-{name}", self._loop)
        self._dispatcher = Dispatcher(self._link, self._loop, name)

    def __enter__(self) -> Self:
        self._loop.start()
        self._link.start()
        ready = threading.Event()
        self._dispatcher.start(on_ready=ready.set)
        assert ready.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()
        self._loop.stop()

    def ask(self, request: str, question: Question) -> None:
        self.history.asked(request, "direct", question.task, plain_value(question.expected), question.deadline_s)
        self._dispatcher.submit(question.task, question.inputs, question.deadline_s, self._recorder(request))

    def _recorder(self, request: str) -> Callable[[Result], None]:
        def done(result: Result) -> None:
            value = plain_value(result.outputs.get(result.answer[0])) if result.error is None else None
            code = result.error.code if result.error is not None else None
            self.history.answered(request, value=value, code=code, attempts=result.attempts)

        return done


class Plain:
    """Asks over the plain door in MQTT 3.1.1, as Mosquitto's own tools do, and comes back when it is thrown off."""

    def __init__(self, port: int, root: str, tasks: Sequence[str], history: History) -> None:
        self.history = history
        self._root = root
        self._subscribed = threading.Event()
        self._topics = [(topics.RESPONSE.at(root, task=task), 1) for task in tasks]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.reconnect_delay_set(_RETURN_S, _RETURN_S)
        self._client.on_socket_open = _no_delay
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        self._client.on_message = lambda _c, _u, message: self._record(bytes(message.payload))
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        self.wait_until_back()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, *_: object) -> None:
        self._client.subscribe(self._topics)

    def wait_until_back(self) -> None:
        assert self._subscribed.wait(WAIT_S)

    def ask(self, request: str, question: Question) -> None:
        self.history.asked(request, "plain", question.task, plain_value(question.expected), question.deadline_s)
        inputs = plain_inputs(question.inputs)
        document = {"transaction": request, "inputs": inputs, "deadline_s": question.deadline_s}
        self._client.publish(topics.REQUEST.at(self._root, task=question.task), json.dumps(document), qos=1)

    def _record(self, payload: bytes) -> None:
        answer: dict[str, Any] = json.loads(payload)
        code = None if answer["status"] == "ok" else answer["error"]["code"]
        self.history.answered(
            answer["transaction"], value=answer.get("answer"), code=code, attempts=answer.get("attempts", 1)
        )


def _no_delay(_c: paho.Client, _u: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Load:
    """Asks questions at a pace from a thread of its own, each over a way that chance picks.

    Args:
        ways: Direct, Plain.
        questions: In order; taken round and round.
        count: How many to ask; None goes on until it is told to stop.
        per_s: Pace.
        most_open: How many may be unanswered: the pace is less on a machine that cannot answer as many.
        rng: Picks the way.
        prefix: Of the requests' ids.
    """

    def __init__(
        self,
        ways: Sequence[Direct | Plain],
        questions: Sequence[Question],
        *,
        count: int | None,
        per_s: float,
        rng: random.Random,
        prefix: str = "r",
        most_open: int | None = None,
    ) -> None:
        self._prefix = prefix
        self._ways = ways
        self._questions = itertools.islice(itertools.cycle(questions), count)
        self._per_s = per_s
        self._most_open = most_open
        self._rng = rng
        self.asked = 0
        self._stopping = threading.Event()
        self._asked = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks no more."""
        self._stopping.set()
        self._thread.join(WAIT_S)

    @property
    def is_over(self) -> bool:
        """Whether all has been asked."""
        return not self._thread.is_alive()

    def lasts(self, seconds: float) -> bool:
        """Lets it go on for so long; returns whether there is more to ask."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def wait_until_asked(self, count: int, timeout_s: float) -> bool:
        """Waits until so many have been asked; returns whether they were."""
        with self._asked:
            return self._asked.wait_for(lambda: self.asked >= count, timeout_s)

    def _run(self) -> None:
        due = time.monotonic()
        for number, question in enumerate(self._questions):
            due = max(due + 1 / self._per_s, time.monotonic())  # what is late is not made up for
            if self._stopping.wait(due - time.monotonic()):
                return
            if (most := self._most_open) is not None:
                self._ways[0].history.wait_until(lambda left, most=most: left < most, WAIT_S)  # type: ignore[misc]
            self._rng.choice(self._ways).ask(f"{self._prefix}{number}", question)
            with self._asked:
                self.asked = number + 1
                self._asked.notify_all()
