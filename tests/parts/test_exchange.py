"""Parts go from node to node over a real broker: from several at once, after cuts, never from who sends wrong bytes."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from s2m3.agents.checkpoints.storage.content import WrongContentError
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import LIGHT, fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.parts import window
from s2m3.agents.parts.torch_files import dtype_of, torch_files
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas import topics
from s2m3.schemas.messages import ModuleReport, NodeState
from s2m3.schemas.parts import PartOffer, PartWanted, part_key
from s2m3.schemas.settings import BrokerSettings
from tests.conftest import WAIT_S
from tests.parts.node import WEIGHTS, Node, spec_of
from tests.parts.test_torch_files import written

pytestmark = pytest.mark.short_on("mosquitto")
SPEC = spec_of("/somewhere/clip")


@pytest.fixture
def node(settings: BrokerSettings, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes nodes, by name; a second one of a name has the folder of the first."""
    made: list[Node] = []

    def make(name: str, sources: CheckpointSources | None = None) -> Node:
        (tmp_path / name).mkdir(exist_ok=True)
        made.append(Node(settings, name, tmp_path / name / "parts", sources))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def _no_piece_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read at a low priority: on a busy machine a piece may take seconds, and would be asked for again."""
    monkeypatch.setattr(window, "_LEAST_TIMEOUT_S", WAIT_S)
    monkeypatch.setattr(window, "_LONGEST_TIMEOUT_S", WAIT_S)


@pytest.fixture
def observer(settings: BrokerSettings, loop: Loop) -> Iterator[Queue[Message]]:
    """Hears every piece that is asked for."""
    heard: Queue[Message] = Queue()
    link = Link(settings, f"{settings.root.replace('/', '-')}-observer", loop)
    link.start()
    listening = threading.Event()
    link.subscribe(topics.PART_REQUEST.all(settings.root), heard.put, on_subscribed=listening.set)
    assert listening.wait(WAIT_S)
    yield heard
    link.stop()


def asked(heard: "Queue[Message]", root: str) -> list[tuple[str, int]]:
    """Returns the holder and the index of each piece that was asked for since the last call."""
    found = []
    while not heard.empty():
        message = heard.get()
        request = topics.PART_REQUEST.decode(message.payload)
        ids = topics.PART_REQUEST.ids(root, message.topic) or {}
        if not request.hashes and request.file == 1:
            found.append((ids["holder"], request.piece))
    return found


@pytest.mark.parametrize("part", ["head", pytest.param("vision", marks=pytest.mark.long)])
def test_a_part_of_a_folder_comes_whole_and_is_the_same_part(
    node: Callable[..., Node], tiny: Path, tmp_path: Path, part: str
) -> None:
    """Hashing the head imports nothing; that of a network, transformers."""
    shutil.copytree(tiny / "tiny-clip", tmp_path / "shelf" / "clip")
    shelf = CheckpointSources((tmp_path / "shelf",))
    definition = checkpoint_definition(str(tiny / "tiny-clip"), "clip")
    assert definition is not None
    laptop, pi = node("laptop", shelf), node("pi")
    assert laptop.parts.is_on
    spec = next(spec for spec in definition.modules if spec.prefix == part)
    pi.fetch(spec)
    got = pi.loaded.get(timeout=WAIT_S)
    assert Path(got.source).is_relative_to(pi.folder)
    original = fingerprint(open_part(spec, shelf))
    assert (got.id, got.fingerprint) == (spec.id, original)
    assert fingerprint(open_part(got, CheckpointSources())) == original
    assert pi.parts.cache.keys(9) == [part_key(spec)]


@pytest.mark.usefixtures("_no_piece_is_late")
def test_several_holders_send_at_once_and_each_piece_is_asked_once(
    node: Callable[..., Node], observer: "Queue[Message]", settings: BrokerSettings
) -> None:
    holders = [node(name) for name in ("a", "b", "c")]
    assert len({holder.put(SPEC) for holder in holders}) == 1
    receiver = node("pi")
    receiver.fetch(SPEC)
    got = receiver.loaded.get(timeout=WAIT_S)
    assert (Path(got.source) / "model.safetensors").read_bytes() == WEIGHTS
    pieces = asked(observer, settings.root)
    assert {holder for holder, _ in pieces} == {"a", "b", "c"}
    assert Counter(piece for _, piece in pieces) == Counter(range(-(-len(WEIGHTS) // 65_536)))


@pytest.mark.usefixtures("_no_piece_is_late")
def test_two_modules_of_one_part_are_loaded_of_one_download(
    node: Callable[..., Node], observer: "Queue[Message]", settings: BrokerSettings
) -> None:
    holder, receiver = node("a"), node("pi")
    holder.put(SPEC)
    other = SPEC.model_copy(update={"id": "other-eyes"})
    for spec in (SPEC, other):
        receiver.fetch(spec)
    assert {receiver.loaded.get(timeout=WAIT_S).id for _ in range(2)} == {SPEC.id, other.id}
    assert receiver.failed.empty()
    assert set(Counter(asked(observer, settings.root)).values()) == {1}


@pytest.mark.usefixtures("_no_piece_is_late")
def test_a_holder_of_wrong_bytes_is_named_and_another_is_asked(node: Callable[..., Node]) -> None:
    liar, honest = node("liar"), node("honest")
    for holder in (liar, honest):
        digest = holder.put(SPEC)
    weights = liar.folder / digest / "files" / "model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(bytes(len(WEIGHTS)))
    receiver = node("pi")
    receiver.fetch(SPEC)
    got = receiver.loaded.get(timeout=WAIT_S)
    assert (Path(got.source) / "model.safetensors").read_bytes() == WEIGHTS
    assert receiver.parts.banned == {("liar", digest)}
    told = receiver.parts.noted(SPEC.id, ModuleReport(state="ready")).fetched
    assert told is not None
    assert "wrong bytes" in told.refused["liar"]


def test_a_part_that_is_not_what_it_was_said_to_be_is_dropped_and_its_senders_are_named(
    node: Callable[..., Node],
) -> None:
    """The manifest itself was a lie: only loading the part shows it."""
    liar, receiver = node("liar"), node("pi")
    digest = liar.put(SPEC)
    receiver.fetch(SPEC)
    got = receiver.loaded.get(timeout=WAIT_S)
    assert got.fingerprint == "c" * 64
    done = threading.Event()
    receiver.loop.call(lambda: receiver.parts.not_loaded(SPEC.id, WrongContentError("it holds something else")))
    receiver.loop.call(done.set)
    assert done.wait(WAIT_S)
    assert receiver.parts.cache.parts() == []
    assert receiver.parts.banned == {("liar", digest)}


@pytest.mark.usefixtures("_no_piece_is_late")
def test_a_receiver_that_was_cut_off_asks_only_for_what_it_lacks(
    node: Callable[..., Node], observer: "Queue[Message]", settings: BrokerSettings
) -> None:
    holder, receiver = node("a"), node("pi")
    digest = holder.put(SPEC)
    holder.is_busy = True  # a piece each second
    receiver.fetch(SPEC)
    deadline = time.monotonic() + WAIT_S
    while (progress := receiver.parts.progress(SPEC.id)) is None or progress.bytes < 100_000:
        assert time.monotonic() < deadline
        observer.get(timeout=WAIT_S)
    receiver.stop()
    held = (receiver.folder / f"{digest}.partial" / "held").read_bytes()
    asked(observer, settings.root)
    holder.is_busy = False
    again = node("pi")
    again.fetch(SPEC)
    got = again.loaded.get(timeout=WAIT_S)
    assert (Path(got.source) / "model.safetensors").read_bytes() == WEIGHTS
    had = {piece for piece, is_here in enumerate(held[1:]) if is_here}
    assert had
    assert {piece for _, piece in asked(observer, settings.root)} == set(range(len(held) - 1)) - had


def test_while_requests_wait_at_a_holder_pieces_wait_a_second(node: Callable[..., Node]) -> None:
    holder, receiver = node("a"), node("pi")
    holder.put(SPEC, b"small")
    holder.is_busy = True
    began = time.monotonic()
    receiver.fetch(SPEC)
    receiver.loaded.get(timeout=WAIT_S)
    assert time.monotonic() - began >= 2.0  # two files of one piece


def test_a_part_in_the_cache_is_taken_when_nobody_else_has_it(node: Callable[..., Node]) -> None:
    alone = node("pi")
    digest = alone.put(SPEC)
    alone.fetch(SPEC)
    assert Path(alone.loaded.get(timeout=WAIT_S).source).parent.name == digest


def test_a_module_that_the_plan_drops_is_not_fetched_any_more(node: Callable[..., Node]) -> None:
    receiver = node("pi")
    receiver.fetch(SPEC)
    receiver.loop.call(lambda: receiver.parts.keep(set()))
    spec, error = receiver.failed.get(timeout=WAIT_S)
    assert (spec.id, "plan" in error.detail) == (SPEC.id, True)


def test_only_what_the_profile_names_is_offered(
    node: Callable[..., Node], tiny: Path, tmp_path: Path, settings: BrokerSettings, loop: Loop
) -> None:
    """A folder elsewhere on a holder's disk is nobody's business, although its path is known."""
    shutil.copytree(tiny / "tiny-vit", tmp_path / "shelf" / "vit")
    shutil.copytree(tiny / "tiny-vit", tmp_path / "private" / "vit")
    node("laptop", CheckpointSources((tmp_path / "shelf",)))
    link, offers = Link(settings, f"{settings.root.replace('/', '-')}-asker", loop), Queue[PartOffer]()
    link.start()
    listening = threading.Event()
    link.subscribe(
        topics.PART_OFFER.all(settings.root, asker="pi"),
        lambda message: offers.put(topics.PART_OFFER.decode(message.payload)),
        on_subscribed=listening.set,
    )
    assert listening.wait(WAIT_S)
    definition = checkpoint_definition(str(tiny / "tiny-vit"), "vit")
    assert definition is not None
    mine = next(spec for spec in definition.modules if spec.class_ in LIGHT)
    for source in (str(tmp_path / "private" / "vit"), "../private/vit", "vit"):
        wanted = PartWanted.of(mine.model_copy(update={"source": source}), ["torch"])
        link.publish(Outgoing(topics.PART_WANTED.at(settings.root, asker="pi"), wanted.encode()))
    first = offers.get(timeout=WAIT_S)
    second = offers.get(timeout=WAIT_S)
    assert (first.manifest, first.key) == (None, second.key)  # being hashed, then the part
    assert second.manifest is not None
    link.stop()


def test_a_folder_that_was_saved_anew_is_not_taken_for_the_copy_in_its_nodes_cache(
    node: Callable[..., Node], tiny: Path, tmp_path: Path
) -> None:
    """The laptop once got the part from another node, and has the checkpoint itself now."""
    shelf = CheckpointSources((tmp_path / "shelf",))
    shutil.copytree(tiny / "tiny-clip", tmp_path / "shelf" / "clip")
    definition = checkpoint_definition(str(tmp_path / "shelf" / "clip"), "clip")
    assert definition is not None
    spec = next(spec for spec in definition.modules if spec.class_ in LIGHT).model_copy(update={"source": "clip"})
    laptop = node("laptop", shelf)
    opened = open_part(spec, shelf)
    written(torch_files(opened), tmp_path / "copy")
    files = {path.relative_to(tmp_path / "copy").as_posix(): path for path in (tmp_path / "copy").rglob("*.*")}
    kept = laptop.parts.cache.put(
        files, content=fingerprint(opened), runtime="torch", dtype=dtype_of(opened), keys=[part_key(spec)]
    )
    receivers = [node(name) for name in ("first", "second", "third")]
    for receiver in receivers[:2]:
        receiver.fetch(spec)
        assert Path(receiver.loaded.get(timeout=WAIT_S).source).parent.name == kept.manifest.digest
    config = tmp_path / "shelf" / "clip" / "config.json"
    config.write_text(config.read_text() + " ")
    receivers[2].fetch(spec)
    got = Path(receivers[2].loaded.get(timeout=WAIT_S).source)
    assert (got / "config.json").read_bytes() == config.read_bytes()


def test_nothing_on_these_topics_ends_a_node(node: Callable[..., Node], settings: BrokerSettings, loop: Loop) -> None:
    holder, receiver = node("a"), node("pi")
    holder.put(SPEC, b"small")
    link = Link(settings, f"{settings.root.replace('/', '-')}-bad", loop)
    link.start()
    said = threading.Event()
    for name in ("a", "pi"):
        for topic in (
            topics.PART_WANTED.at(settings.root, asker="x"),
            topics.PART_OFFER.at(settings.root, holder="x", asker=name),
            topics.PART_REQUEST.at(settings.root, asker="x", holder=name),
            topics.PART_PIECE.at(settings.root, holder="a", asker=name),
        ):
            for payload in (b"", b"{", b"\xff" * 9, b"{}", b"[1]", b"\x81\xa4part\x01", b"x" * 100_000):
                link.publish(Outgoing(topic, payload))
    link.publish(Outgoing(topics.PART_WANTED.at(settings.root, asker="x"), b"{}"), on_delivered=said.set)
    assert said.wait(WAIT_S)
    receiver.fetch(SPEC)
    assert receiver.loaded.get(timeout=WAIT_S).id == SPEC.id
    link.stop()


def test_a_node_that_is_lost_while_its_part_is_fetched_is_asked_no_more(
    node: Callable[..., Node], observer: "Queue[Message]", settings: BrokerSettings, loop: Loop
) -> None:
    """Its state is heard although no route names it."""
    part, asker = node("a"), node("b")
    opened = part.parts.cache.open(part.put(SPEC))
    assert opened is not None
    opened.close()
    part.stop()
    asker.fetch(SPEC)
    gone = Link(settings, f"{settings.root.replace('/', '-')}-gone", loop)
    gone.start()
    offer = Outgoing(
        topics.PART_OFFER.at(settings.root, holder="gone", asker="b"),
        PartOffer(key=part_key(SPEC), manifest=opened.manifest).encode(),
    )
    offering = loop.every(0.1, lambda: gone.publish(offer))
    request = observer.get(timeout=WAIT_S)
    offering.cancel()
    assert topics.PART_REQUEST.ids(settings.root, request.topic) == {"asker": "b", "holder": "gone"}
    lost = NodeState(state="lost", boot="1").encode()
    gone.publish(Outgoing(topics.NODE_STATE.at(settings.root, node="gone"), lost, retain=True))
    deadline = time.monotonic() + WAIT_S
    while (progress := asker.parts.progress(SPEC.id)) is not None and progress.nodes:
        assert time.monotonic() < deadline, progress
        threading.Event().wait(0.01)
    assert progress is not None
    gone.stop()
