"""A node that has and lacks parts, on a real broker: everything of an agent but the loading of modules."""

import hashlib
import threading
from pathlib import Path
from queue import Queue

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.devices import Device
from s2m3.agents.parts.exchange import PartExchange
from s2m3.agents.presence import Presence
from s2m3.agents.resources import Resources
from s2m3.agents.speed import LinkSpeed
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.messages import NodeState
from s2m3.schemas.parts import part_key
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from tests.conftest import WAIT_S

#: Enough pieces for several holders, and for a cut in the middle.
WEIGHTS = hashlib.shake_128(b"weights").digest(2_000_000)


def spec_of(source: str, prefix: str = "vision") -> ModuleSpec:
    return ModuleSpec.model_validate(
        {
            "id": "eyes", "role": "vision-encoder", "class": "image-encoder", "source": source, "prefix": prefix,
            "inputs": {"image": "image"}, "outputs": {"features": "tensor"}, "memory_mb": 2.0,
        }
    )  # fmt: skip


class Node:
    """One node. `loaded` gets what the loader would load, `failed` why a part did not come."""

    def __init__(
        self, settings: BrokerSettings, name: str, folder: Path, sources: CheckpointSources | None = None
    ) -> None:
        self.name, self.folder, self.is_busy, self._is_stopped = name, folder, False, False
        self.loaded = Queue[ModuleSpec]()
        self.failed = Queue[tuple[ModuleSpec, S2M3Error]]()
        own = AgentSettings(host=settings.host, port=settings.port, root=settings.root, node=name, parts=folder)
        self.loop = Loop(name)
        self.link = Link(own, f"{settings.root.replace('/', '-')}-{name}", self.loop)
        self.presence = Presence(self.link, name, "boot")
        self.parts = PartExchange(
            own,
            self.link,
            self.loop,
            sources or CheckpointSources(),
            self.presence,
            load=self.loaded.put,
            on_failed=lambda spec, error: self.failed.put((spec, error)),
            on_progress=lambda *_: None,
            is_busy=lambda: self.is_busy,
            states=Dispatcher(self.link, self.loop, name, on_node_state=self._on_state).routes,
        )
        self.loop.start()
        self.link.start()
        self.presence.introduce(
            resources=Resources(Device(), 1000.0, 1000.0, 1, {"float32": 10.0}, "float32"),
            runtime_mb=50.0, keepalive_s=5.0, link_speed=LinkSpeed(1.0, 100.0),
            with_torch=False, gateway=True, most_gateways=None,
            sources=sources or CheckpointSources(), parts=self.parts.cache,
        )  # fmt: skip
        self.parts.start()
        listening = threading.Event()  # what it publishes comes behind its subscriptions
        self.link.publish(Outgoing(f"{settings.root}/event/listening", b"{}"), on_delivered=listening.set)
        assert listening.wait(WAIT_S)

    def _on_state(self, node: str, state: NodeState | None) -> None:
        self.parts.on_state(node, state)

    def put(self, spec: ModuleSpec, weights: bytes = WEIGHTS) -> str:
        """Puts a part into its cache; returns the digest."""
        file, config = self.folder.parent / f"{self.name}.weights", self.folder.parent / f"{self.name}.config"
        file.write_bytes(weights)
        config.write_text("{}")
        files = {"model.safetensors": file, "config.json": config}
        part = self.parts.cache.put(files, content="c" * 64, runtime="torch", dtype="", keys=[part_key(spec)])
        return part.manifest.digest

    def fetch(self, spec: ModuleSpec) -> None:
        self.loop.call(lambda: self.parts.load(spec))

    def stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self.parts.stop()
            self.link.stop()
            self.loop.stop()
