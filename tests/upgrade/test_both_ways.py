"""Old and new together: the old release's own code reads what today's says, and either asks the other's site."""

import json
from pathlib import Path
from typing import Any

import pytest

from s2m3.client import Client
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.protocol import needs
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.wire.codec import encode_work
from s2m3.schemas.wire.generation import NO_OPTIONS, Options
from s2m3.schemas.wire.work import Hop, Work
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.fuzzing import documents
from tests.system.plain import PlainCaller
from tests.upgrade.site import NEW, NODES, Mixed, run_in

pytestmark = pytest.mark.short_on("embedded")

_ASKED = 50
#: Reads documents with the old release's code: {"pattern": …, "payload": …} for each line.
_READ = """
import json, sys
from schemas import topics
known = {path.pattern: path for path in topics.ALL}
for line in sys.stdin:
    said = json.loads(line)
    known[said["pattern"]].decode(said["payload"].encode())
    print("read")
"""
_READ_WORK = """
import sys
from schemas.codec import decode_work
work = decode_work(sys.stdin.buffer.read(), request=bytes(16), reply_to="s2m3/v1/client/x/in", user={"step": "words"})
print(work.hop.options.as_dict())
"""
_ASK = """
import sys
from s2m3 import Client
with Client("127.0.0.1", int(sys.argv[1])) as client:
    for number in range(int(sys.argv[2])):
        assert client.ask("noop", left=number, right=number).value == [number, number]
print("asked")
"""


def read_by(tree: Path, said: list[tuple[str, bytes]]) -> Any:
    lines = [json.dumps({"pattern": pattern, "payload": payload.decode()}) for pattern, payload in said]
    return run_in(tree, "-c", _READ, given="\n".join(lines).encode())


def test_a_plan_of_every_module_there_is_is_read_by_the_old_release(old: Path) -> None:
    """What a later release adds to a module has to be marked with its number, or this fails.

    A planner places no module on a node that does not understand it.
    """
    every = shipped_catalogue().modules.values()
    modules = [module for module in every if needs(module) == 0]
    assert {module.id for module in every} - {module.id for module in modules} == {
        "blazeface",
        "ssd-mobilenet-household",
    }
    plan = m.Plan(epoch=1, revision=1, modules=modules, gateways=["noop"])
    done = read_by(old, [(topics.PLAN.pattern, plan.encode(0))])
    assert done.stdout.decode().split() == ["read"], done.stderr.decode()[-2000:]


def test_every_document_of_today_is_read_by_the_old_release(old: Path) -> None:
    known = documents()
    parts = (topics.PART_WANTED, topics.PART_OFFER, topics.PART_REQUEST)
    kept = (topics.HISTORY_STATE, topics.HISTORY_NEW, topics.HISTORY_WANTED, topics.HISTORY_KEPT, topics.HISTORY_DONE)
    newer = (topics.ROLLCALL, *parts, *kept, topics.NODE_SETTINGS, topics.WAKE, topics.DEMAND, topics.CLAIMS)
    carrying = [path for path in topics.ALL if isinstance(path, topics.Topic) and path not in newer]
    said = [(path.pattern, known[path.document.__name__].encode(0)) for path in carrying]
    done = read_by(old, said)
    assert done.stdout.decode().split() == ["read"] * len(said), done.stderr.decode()[-2000:]


def test_the_old_release_refuses_what_it_does_not_know(old: Path) -> None:
    """Else the two tests before show nothing, and neither does an upgrade without `bad_document` in the logs."""
    module = json.loads(shipped_catalogue().modules["noop-left"].model_dump_json(by_alias=True, exclude_none=True))
    plan = {"epoch": 1, "revision": 1, "modules": [{**module, "a-newer-key": 1}]}
    done = read_by(old, [(topics.PLAN.pattern, json.dumps(plan).encode())])
    assert done.returncode != 0
    assert b"a-newer-key" in done.stderr


def test_work_with_every_option_is_read_by_the_old_release(old: Path) -> None:
    options = Options(max_tokens=4, stop=("x",), temperature=0.5, seed=1).for_reader(0)
    assert options != NO_OPTIONS
    hops = {"words": Hop("captioner", "a", {"text": "input.text"}, ("text",), options, stream=True)}
    inbox = "s2m3/v1/client/x/in"
    payload, _ = encode_work(Work(new_request_id(), "t", "words", 1, 1, inbox, {"text": "x"}, hops, 1000.0))
    done = run_in(old, "-c", _READ_WORK, given=payload)
    assert b"temperature" in done.stdout, done.stderr.decode()[-2000:]


@pytest.fixture
def upgraded(mixed: Mixed) -> Mixed:
    """The same site, of today's release."""
    with Site(mixed.settings) as site:
        for name in ("planner", *NODES):
            mixed.upgrade(name, site)
    return mixed


def test_an_old_client_and_an_old_command_work_on_todays_site(upgraded: Mixed, old: Path) -> None:
    port = str(upgraded.settings.port)
    done = run_in(old, "-c", _ASK, port, str(_ASKED))
    assert done.stdout.decode().split() == ["asked"], done.stderr.decode()[-2000:]
    shown = run_in(old, "-m", "s2m3", "status", "--json", "--port", port)
    assert json.loads(shown.stdout)["tasks"]["noop"]["ready"], shown.stderr


def test_todays_undo_of_a_drain_says_that_an_old_agent_does_not_know_it(mixed: Mixed) -> None:
    """The node is there, drained, serves no more, and takes work again as it did in the old release."""
    port = str(mixed.settings.port)
    with Site(mixed.settings) as site:
        drained = run_in(NEW, "-m", "s2m3", "drain", "a", "--wait", f"{WAIT_S:g}", "--port", port)
        assert drained.returncode == 0, drained.stderr
        undone = run_in(NEW, "-m", "s2m3", "drain", "a", "--undo", "--wait", "1", "--port", port)
        assert undone.returncode == 1
        assert b"of an older release that does not know this order; started again, it takes work again" in undone.stderr
        assert site.nodes.state("a") == "draining"
        mixed.upgrade("a", site)
        assert site.nodes.state("a") == "ready"
    assert "bad_document" not in mixed.words("planner", *NODES)


def test_todays_client_caller_and_command_work_on_an_old_site(mixed: Mixed) -> None:
    with Client(settings=mixed.settings) as client:
        for number in range(_ASKED):
            assert client.ask("noop", left=number, right=number).value == [number, number]
    root = mixed.settings.root
    with PlainCaller(mixed.broker.port_v3, 4, (f"{root}/response/noop",)) as caller:
        caller.send(f"{root}/request/noop", json.dumps({"inputs": {"left": 1, "right": 2}}).encode())
        assert caller.answer()["answer"] == [1, 2]
    shown = run_in(NEW, "-m", "s2m3", "status", "--json", "--port", str(mixed.settings.port))
    document = json.loads(shown.stdout)
    assert document["tasks"]["noop"]["ready"], shown.stderr
    assert {node["protocol"] for node in document["nodes"].values()} == {0}
    assert "bad_document" not in mixed.words("planner", *NODES)
