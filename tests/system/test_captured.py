"""What real processes say on a real bus, each message held against its schema in docs/schema: and no key besides."""

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from jsonschema import Draft202012Validator

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.orders import order
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.history import HistoryWanted
from s2m3.schemas.wire.codec import CONTENT_TYPE
from s2m3.schemas.wire.packing import unpack
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller

ROOT = "s2m3/v1"
FOLDER = Path(__file__).parents[2] / "docs" / "schema"
#: A retained document is cleared by an empty message; so is an inbox shown to be open.
EMPTY = b""
#: Of these a short run need not have one.
RARE = {"PlannerHealth", "PartWanted", "PartOffer", "PieceRequest", "Demand", "WakeOrder"}
RARE |= {"TaskPreview", "ModelList"}  # in the data of a ControlResponse: tests/dashboard/test_setup.py
RARE |= {"Claims"}  # of clusters of brokers alone: tests/clustered/test_broker_dies.py
#: What callers say, not our own processes: it may have keys that the schema does not name.
ASKED = {"PlainRequest"}


def _open(schema: Any) -> Any:
    return schema


def _closed(schema: Any) -> Any:
    """The schema without room for keys that it does not name: readers leave room, writers need none."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(item) for key, item in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed


SCHEMAS = {
    path.stem: Draft202012Validator((_open if path.stem in ASKED else _closed)(json.loads(path.read_text())))
    for path in sorted(FOLDER.glob("*.json"))
}


class Tap:
    """Hears everything below the root, retained or not."""

    def __init__(self, port: int) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._caller = PlainCaller(port, paho.MQTTv5, (f"{ROOT}/#",))
        self._caller.client.on_message = lambda _c, _u, message: self.messages.put(message)

    def __enter__(self) -> Self:
        self._caller.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._caller.__exit__()

    def until(self, names: set[str]) -> Iterator[tuple[str, Any]]:
        """Yields each message with the name of its schema, until each of the names has come and none is waiting."""
        left, deadline = set(names), time.monotonic() + WAIT_S
        while left or not self.messages.empty():
            try:
                message = self.messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"never came: {sorted(left)}")
            if (found := _named(message)) is not None:
                left.discard(found[0])
                yield found


def _named(message: paho.MQTTMessage) -> tuple[str, Any] | None:
    """The name of a message's schema, and what is in it; None for raw bytes and empty messages."""
    if message.payload == EMPTY:
        return None
    family = next(path for path in topics.ALL if path.ids(ROOT, message.topic) is not None)
    if isinstance(family, topics.Topic):
        return family.document.__name__, json.loads(message.payload)
    if family in (topics.REQUEST, topics.RESPONSE):
        document = json.loads(message.payload)
        name = {None: "PlainRequest", "piece": "PlainPiece"}.get(document.get("status"), "PlainAnswer")
        return name, document
    properties: Any = message.properties
    if getattr(properties, "ContentType", None) != CONTENT_TYPE:
        return None
    is_piece = "seq" in dict(getattr(properties, "UserProperty", ()))
    name = "Work" if family == topics.MODULE_IN else "Piece" if is_piece else "Answer"
    return name, unpack(bytes(message.payload))


@pytest.fixture
def site_with_everything(kind: BrokerKind) -> Iterator[Cluster]:
    """One light node, two tasks, the bridge."""
    with Cluster({"a": 150.0}, kind=kind, threads=1, bridge=True) as cluster:
        yield cluster


def _use(cluster: Cluster) -> None:
    """Asks plainly and directly, streams, fails, binds, orders."""
    with Site(cluster.settings) as site:
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=10))
        add_task(site, "words", m.TaskSpec(model="noop-text", deadline_s=30))
        assert site.wait(lambda s: s.ready("noop") and s.ready("words") and s.bridge is not None, WAIT_S)
        binding = Binding(source="door/+", task="noop", publish="told/{1}", input="left", inputs={"right": 1})
        site.publish(topics.BIND, binding.encode(), binding="door")
        assert site.wait(lambda s: "door" in s.reports, WAIT_S)
        with Client(settings=cluster.settings) as client:
            assert client.ask("noop", left=b"a", right=2.5).value == [b"a", 2.5]
            assert client.stream("words", text="one two three").result(WAIT_S).value == "one two three"
            with pytest.raises(S2M3Error):
                client.ask("noop", left=1)
        with PlainCaller(cluster.broker.port_v3, paho.MQTTv311, (f"{ROOT}/response/+", "told/+")) as caller:
            for task, document in (
                ("noop", {"transaction": 1, "inputs": {"left": 1, "right": 2}, "options": {"nonsense": 1}}),
                ("noop", {"transaction": "t", "inputs": {"left": 1}}),
                ("words", {"inputs": {"text": "a b c"}, "stream": True, "options": {"stop": ["z"]}}),
            ):
                caller.send(f"{ROOT}/request/{task}", json.dumps(document).encode())
                while caller.answer()["status"] == "piece":
                    pass
            caller.send("door/front", b"ring")
            assert caller.message().topic == "told/front"
    s2m3("replan", port=cluster.settings.port, check=True)
    s2m3("node", "set", "a", "--prefer", "2", port=cluster.settings.port, check=True)
    with Site(cluster.settings) as site:  # by now the bridge keeps what the door was answered
        order(site, "undrain", "a")
        site.publish(topics.HISTORY_WANTED, HistoryWanted(transaction="t").encode(), asker="page")


@pytest.mark.short_on("mosquitto")
def test_all_that_is_said_is_as_its_schema_has_it(site_with_everything: Cluster) -> None:
    with Tap(site_with_everything.settings.port) as tap:
        _use(site_with_everything)
        for name, document in tap.until(SCHEMAS.keys() - RARE):
            wrong = [f"{error.json_path}: {error.message}" for error in SCHEMAS[name].iter_errors(document)]
            assert wrong == [], (name, document)
