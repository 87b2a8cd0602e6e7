"""Broken messages by the million: valid ones of every kind, mutated from a seed. What reads them may only refuse them.

Half of them are changed byte by byte, half value by value: those get past the parser, to what looks at the content.
"""

import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np

from s2m3.broker.requests.stream_assembler import StreamAssembler
from s2m3.schemas import bridge as b
from s2m3.schemas import history as h
from s2m3.schemas import messages as m
from s2m3.schemas import parts as p
from s2m3.schemas import topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.document import Document
from s2m3.schemas.errors import BadInputError, BusyError
from s2m3.schemas.notices import Claims
from s2m3.schemas.sleep import Demand, NodeSettings, WakeOrder
from s2m3.schemas.wire.codec import decode_answer, decode_piece, decode_work, encode_answer, encode_piece, encode_work
from s2m3.schemas.wire.generation import Piece
from s2m3.schemas.wire.input_pieces import GrowingInput
from s2m3.schemas.wire.part_pieces import decode_part_piece, encode_part_piece
from s2m3.schemas.wire.plain import encode_plain_error, encode_plain_result, parse_plain, read_inputs, transaction_of
from s2m3.schemas.wire.work import Answer, Hop, Timing, Work

__all__ = ["SURFACES", "Surface", "broken", "documents"]

REQUEST = bytes(range(16))
INBOX = "s2m3/v1/client/fuzz/in"
_ROUTE = {
    "image": Hop("vit", "pi5", {"picture": "input.image"}, ("embedding",)),
    "rank": Hop("cosine", "nuc", {"left": "image.embedding", "top": "input.top"}, ("label",)),
}
_INPUTS: tuple[dict[str, Any], ...] = (
    {"picture": b"\xff\xd8\xff\xe0" + bytes(60)},
    {"picture": np.arange(12, dtype=np.float32).reshape(3, 4)},
    {"picture": ["a cat", {"b": 1.5, "deep": [[[None, True, -(2**63)]]]}]},
)
#: Bytes that change a parser's mind: msgpack's type bytes, JSON's brackets, the ends of UTF-8 and of numbers.
_LOADED = (
    b'\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc4\xc6\xc7\xc9\xca\xcb\xcf\xd3\xd4\xd6\xd8\xdb\xdd\xdf\xff[]{}",:e-\\'
)
#: Values that are legal where they are and wrong where they come to.
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, -(2**63), 1e308, float("nan"), float("inf")),
    *("", "a" * 5_000, "\ud800", "\x00/+#", "input.", ".", b"", b"\xff" * 40),
    *([], [[]], [None] * 70, {}, {"": {}}, {"base64": "=="}, {"base64": 7}),
    {"dtype": "float32", "shape": [0, 2**62], "bytes": b""},
    {"dtype": "float32", "shape": [2, 3], "bytes": b"1234"},
    {"dtype": "O", "shape": [], "bytes": b""},
)
_ODD_KEYS = ("", "step", "image", "picture", "a/b", "x" * 200, "dtype", "bytes")

#: Reads a payload and uses what it got as the services would; raises nothing but BadInputError.
Read = Callable[[bytes], object]


class Surface:
    """One kind of message: what reads it, and valid ones to begin with."""

    def __init__(self, name: str, read: Read, valid: list[bytes]) -> None:
        self.name = name
        self.valid = valid
        self._read = read

    def take(self, payload: bytes) -> bool:
        """Returns whether the payload was accepted. Any error but `bad_input` comes out: that is the bug looked for."""
        try:
            self._read(payload)
        except BadInputError:
            return False
        return True


def broken(valid: bytes, rng: random.Random) -> bytes:
    """Returns the message with something wrong with it (now and then nothing is)."""
    return _other_bytes(valid, rng) if rng.random() < 0.5 else _other_values(valid, rng)


def _other_bytes(valid: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes set, cut out, put in, doubled, or the end missing."""
    payload = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(payload) + 1)
        match rng.choices(range(6), (4, 4, 2, 2, 2, 1))[0]:
            case 0:
                payload[at : at + 1] = rng.randbytes(1)
            case 1:
                payload[at : at + 1] = bytes([rng.choice(_LOADED)])
            case 2:
                del payload[at : at + rng.randint(1, 8)]
            case 3:
                payload[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                payload[at:at] = payload[rng.randrange(len(payload) + 1) :][: rng.randint(1, 64)]
            case _:
                del payload[at:]
    return bytes(payload)


def _other_values(valid: bytes, rng: random.Random) -> bytes:
    """One or two values anywhere in the message replaced, dropped, or put under another key."""
    is_json = valid[:1] == b"{"
    document = json.loads(valid) if is_json else msgpack.unpackb(valid)
    for _ in range(rng.choice((1, 1, 2))):
        _change(rng.choice(_inner(document)), rng)
    if is_json:
        return json.dumps(document, default=repr).encode()
    packed: bytes = msgpack.packb(document, unicode_errors="surrogatepass")
    return packed


def _inner(document: Any) -> list[Any]:
    """Every list and map with something in it, at any depth."""
    here = [document] if isinstance(document, list | dict) and document else []
    inside = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return [*here, *(found for value in inside for found in _inner(value))] or [[None]]


def _change(container: Any, rng: random.Random) -> None:
    key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
    match rng.randrange(4):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[rng.choice(_ODD_KEYS)] = container.pop(key)
        case _:
            container[key] = deepcopy(rng.choice(_ODD))


def _work(payload: bytes) -> object:
    return encode_work(decode_work(payload, request=REQUEST, reply_to=INBOX, user={"step": "image"}))


def _answer(payload: bytes) -> object:
    answer = decode_answer(payload, request=REQUEST, user={"step": "rank"})
    if answer.error is not None:
        return encode_plain_error(answer.error, request=REQUEST, transaction=None), encode_answer(answer)
    result = encode_plain_result(
        answer=next(iter(answer.outputs.values()), None),
        outputs=answer.outputs,
        timings=answer.timings,
        latency_ms=1.0,
        attempts=1,
        request=REQUEST,
        transaction=None,
        model="m",
    )
    return result, encode_answer(answer)


def _piece(payload: bytes) -> object:
    piece = decode_piece(payload, request=REQUEST, user={"step": "words", "seq": "0"})
    streamed = StreamAssembler()
    return streamed.add(piece), streamed.end("a whole text"), encode_piece(piece)


def _part_piece(payload: bytes) -> object:
    piece = decode_part_piece(payload)
    request = p.PieceRequest(part=piece.part, file=piece.file % 9, piece=piece.piece % 9, hashes=piece.hashes)
    return encode_part_piece(request, piece.data, piece.refused)


def _plain(payload: bytes) -> object:
    error = encode_plain_error(BusyError("full"), request=REQUEST, transaction=transaction_of(payload))
    return error, read_inputs({"image": "image", "text": "texts"}, parse_plain(payload).inputs, {"text": ["a"]})


def _document(topic: topics.Topic[Any]) -> Read:
    return lambda payload: topic.decode(payload).encode()


def documents() -> dict[str, Document]:
    """Returns one full document of each kind that travels."""
    catalogue = shipped_catalogue()
    model = catalogue.models["noop"]
    specs = [catalogue.modules[step.module] for step in model.steps.values()]
    specs[0] = specs[0].model_copy(update={"map_weights": "always"})
    why = m.ErrorBody(code="no_capacity", detail="7 MB too little", node="pi")
    steps = {
        name: m.RouteStep(module=s.module, inputs=s.inputs, outputs=["code"], replicas=[m.Replica(node="pi", ms=1)])
        for name, s in model.steps.items()
    }
    ready = m.ModuleReport(state="ready", bytes=7, memory_mb=1.5, ms=3.25, mapped=True)
    made: list[Document] = [
        *_of_the_bridge(why),
        *_of_parts(),
        m.NodeState(state="ready", boot="b"),
        m.NodeProfile(
            boot="b",
            version="1",
            memory_mb=9,
            runtime_mb=1,
            gflops=2,
            latency_ms=1,
            mbps=10,
            classes=["x"],
            mapped=["x"],
            broker="hub:1883",
        ),
        m.Reported(boot="b", modules={"noop-left": ready, "vit": m.ModuleReport(state="failed", reason=why)}),
        m.NodeLoad(queues={"noop-left": 3}, finished={"noop": 5}, keepalive_s=2.0),
        m.TaskSpec(model="noop", inputs={"left": 1, "image": {"base64": "/9j/"}}, map_weights=True),
        m.Plan(epoch=1, revision=2, modules=specs, gateways=["noop"], deputies={"porch": "pi"}),
        m.RouteDoc(epoch=1, revision=2, model="noop", inputs=model.inputs, answer=["echo"], deadline_s=3, steps=steps),
        m.PlannerState(state="online", epoch=3),
        m.PlannerHealth(epoch=1, revision=2, nodes=3, tasks=4, plans=5),
        m.Event(event="node_lost", node="pi", detail="x"),
        m.RollCall(asker="status"),
        NodeSettings(prefer=2.0, wake=_MAC, wake_address="192.168.1.255", idle_minutes=20.0),
        WakeOrder(node="pi", wake=_MAC),
        Demand(asker="pi"),
        Claims(node="pi", sender="c1", number=1, claimed=["0123456789abcdef"]),
        m.ControlRequest(transaction="7", node="pi", task="porch", spec={"model": "noop"}),
        m.ControlResponse(status="error", error=why, data={"revision": 7}, transaction=7),
    ]
    return {type(document).__name__: document for document in made}


_MAC = "52:54:00:12:34:56"
_REQUEST = p.PieceRequest(part="0123456789abcdef" * 4, file=0, piece=1)


def _of_parts() -> list[Document]:
    digest = "0123456789abcdef" * 4
    file = p.PartFile(name="model.safetensors", bytes=70_000, sha256=digest, pieces_sha256=digest)
    manifest = p.PartManifest(content=digest, runtime="torch", dtype="float32", files=[file])
    wanted = {"source": "/models/clip", "prefix": "vision", "class": "image-encoder", "runtimes": ["torch"]}
    return [
        p.PartWanted.model_validate(wanted),
        p.PartWanted.model_validate({**wanted, "runtimes": ["onnx"], "exporter": "n1"}),
        p.PartOffer(key=digest[:16], can_export=True),
        p.PartOffer(key=digest[:16], manifest=manifest, original=True),
        _REQUEST,
    ]


_ANSWERED = b.BridgeAnswer(event_type="answered", state="a cat", answer=["a", 1.5], at="2026-11-25", source="plain")
_KEPT = h.HistoryEntry(
    id=7, task="porch", at_ms=1, answer=_ANSWERED, model="noop", rank=1, asked={"text": "a"}, fits=0.3
)


def _of_the_bridge(why: m.ErrorBody) -> list[Document]:
    return [
        b.Binding(source="cam/+/snapshot", task="porch", input="image", publish="home/{1}", labels=["cat"], above=0.5),
        b.BindingReport(state="refused", error=why, received=3),
        b.BridgeState(state="online", epoch=3),
        b.BridgeNode(connected=True, state="ready", memory_mb=9.5, modules=["vit"]),
        b.BridgePlanner(online=True, nodes=3),
        b.BridgeTask(ready=False, model="noop", problem="x"),
        _ANSWERED,
        h.HistoryState(kept="disk", answers=3, mb=0.5, limit_mb=100.0, limit_s=600.0, search="find"),
        _KEPT,
        h.HistoryWanted(transaction="t", tasks=["porch"], words="cat", since_ms=1, pictures=[7], text="a cat", like=7),
        h.HistoryKept(transaction="t", entries=[_KEPT]),
        h.HistoryDone(transaction="t", more=True, error=why),
    ]


def _surfaces() -> list[Surface]:
    works = [Work(REQUEST, "porch", "image", 1, 7, INBOX, inputs, _ROUTE, 1500.0) for inputs in _INPUTS]
    works.append(replace(works[0], inputs={}, growing={"picture": GrowingInput(REQUEST, 64)}))
    answers = [
        Answer(REQUEST, "rank", 1, {"label": ["a", {"b": 1.5}], "t": np.arange(3)}, {"rank": Timing("nuc", 1, 2, 3)}),
        Answer(REQUEST, "rank", 1, error=BusyError("full", node="pi5", step="rank")),
    ]
    asked = {"transaction": "7", "inputs": {"image": {"base64": "/9j/4AAQ"}, "text": ["a", "b"]}, "deadline_s": 1.5}
    asked |= {"stream": True, "options": {"max_tokens": 4, "stop": ["."], "temperature": 0.5, "seed": 1}}
    found = [
        Surface("work", _work, [encode_work(work)[0] for work in works]),
        Surface("answer", _answer, [encode_answer(answer)[0] for answer in answers]),
        Surface("piece", _piece, [encode_piece(Piece(REQUEST, "words", 1, 0, 4, "a text"))[0]]),
        Surface("piece of a part", _part_piece, [encode_part_piece(_REQUEST, b"bytes")]),
        Surface("plain request", _plain, [json.dumps(asked).encode()]),
    ]
    known = documents()
    carrying = [path for path in topics.ALL if isinstance(path, topics.Topic)]
    return found + [Surface(t.pattern, _document(t), [known[t.document.__name__].encode()]) for t in carrying]


#: The last stage of each read is what a service does next with an accepted message: say it again.
SURFACES = _surfaces()
