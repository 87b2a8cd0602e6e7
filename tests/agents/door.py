"""A gateway on a real broker, with the session that the planner opens, and a module that the test answers for."""

import json
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from s2m3.agents.gateway.gateway import Gateway
from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.task_sessions import TaskSessions
from s2m3.schemas.definitions import Catalogue
from s2m3.schemas.messages import Event, NodeState, Replica, RouteDoc, RouteStep, TaskSpec
from s2m3.schemas.sessions import node_client_id
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.codec import decode_work, encode_answer
from s2m3.schemas.wire.work import Answer, Work
from tests.conftest import WAIT_S

STEP = RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=[Replica(node="n", ms=1)])
ROUTE = RouteDoc(
    epoch=1, revision=1, model="m", inputs={"x": "text"}, answer=["y"], deadline_s=600, steps={"step": STEP}
)


class Door:
    """The task `t`: its module answers with its input; inputs that begin with `slow` wait in `held`."""

    def __init__(self, settings: AgentSettings, loop: Loop) -> None:
        self.settings, self.loop = settings, loop
        self.held: Queue[Message] = Queue()
        self.events: list[Event] = []
        self.room = PayloadRoom(1_000.0)
        self.agent = Link(settings, node_client_id(settings, "n"), loop)
        self.agent.start()
        self._subscribed("module/m/n/in", self._work)
        self.dispatcher = Dispatcher(self.agent, loop, "node-n")
        self._done(lambda done: self.dispatcher.start(on_ready=done))
        self.tell("node/n/state", NodeState(state="ready", boot="b").encode())
        self.tell("route/t", ROUTE.encode())
        loop.call(lambda: self.dispatcher.follow("t"))
        self._until(lambda: "t" in self.dispatcher.tasks())  # what is delivered to the broker is not heard here yet
        cluster = ClusterState(Catalogue(modules={}, models={}), tasks={"t": TaskSpec(model="m")})
        self._done(lambda done: TaskSessions(settings, loop, cluster, done).open_all())
        self.gateway: Gateway | None = None

    def open(self) -> None:
        """Makes a gateway, which takes the task's session over."""
        self.gateway = Gateway(
            "t",
            self.settings,
            self.loop,
            self.dispatcher,
            self.agent,
            may_return=lambda: None,
            publish_event=self.events.append,
            watchdog=Watchdog(),
            room=self.room,
        )
        self.loop.call(self.gateway.connect)

    def close(self) -> None:
        """Closes the gateway: what it has not answered is left to the next.

        A caller hears an answer before the gateway knows that it was delivered: see `settle`.
        """
        gateway = self.gateway
        assert gateway is not None

        def close(done: Callable[[], None]) -> None:
            gateway.close()
            done()

        self._done(close)

    def settle(self) -> None:
        """Waits until what was answered is acknowledged: the next gateway is not brought it again."""
        self._until(lambda: self.room.waiting == 0)

    def stop(self) -> None:
        if self.gateway is not None:
            self.close()
        self.agent.stop()

    def tell(self, topic: str, document: bytes) -> None:
        delivered = threading.Event()
        message = Outgoing(f"{self.settings.root}/{topic}", document, retain=True)
        self.agent.publish(message, on_delivered=delivered.set)
        assert delivered.wait(WAIT_S)

    def answer(self, message: Message, *, text: str | None = None) -> None:
        """Answers work, with its own input if no text is given."""
        work = _read(message)
        payload, user = encode_answer(Answer(work.request, "step", work.attempt, {"y": text or work.inputs["x"]}))
        assert message.reply_to is not None
        self.agent.publish(Outgoing(message.reply_to, payload, correlation=work.request, user=user))

    def _work(self, message: Message) -> None:
        if message.payload:
            is_slow = str(_read(message).inputs["x"]).startswith("slow")
            (self.held.put if is_slow else self.answer)(message)

    def _subscribed(self, topic: str, handler: Callable[[Message], None]) -> None:
        self._done(lambda done: self.agent.subscribe(f"{self.settings.root}/{topic}", handler, on_subscribed=done))

    def _until(self, holds: Callable[[], bool]) -> None:
        """Asks the loop until something holds there."""
        done = threading.Event()

        def look() -> None:
            if holds():
                done.set()
            else:
                self.loop.after(0.01, look)

        self.loop.call(look)
        assert done.wait(WAIT_S)

    def _done(self, begin: Callable[[Callable[[], None]], None]) -> None:
        """Runs a call in the loop, and waits until it reports that it is done."""
        done = threading.Event()
        self.loop.call(lambda: begin(done.set))
        assert done.wait(WAIT_S)


def _read(message: Message) -> Work:
    return decode_work(message.payload, request=message.correlation, user=message.user, reply_to=message.reply_to)


def question(text: str, transaction: Any = None, **more: Any) -> bytes:
    return json.dumps({"transaction": transaction, "inputs": {"x": text}, **more}).encode()
