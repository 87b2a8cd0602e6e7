"""Three ranks on three nodes, real weights and a checkpoint: the best model's node is killed under load."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Answer, Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.demo import sample
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Say
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import make_vit_classifier

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: The runtime of an agent with torch takes 410 to 450 MB. Only the desktop has room for the 90 MB of the text encoder
#: of `vqa`; the 19 MB of `classification` and the checkpoint fit everywhere.
NODES = {"desktop": 760.0, "laptop": 510.0, "pi": 510.0}
ALONE = "minilm"
MODELS = ("vqa", "classification", "tiny-vit")
RATE, DEADLINE_S, READY_S = 50, 10.0, 240.0
#: Requests of one picture: two cores cannot look at 50 new ones a second beside all else.
SAME = 5
STEADY_S = 5.0
#: What the issue allows from the kill to the first answer of the next rank, seconds.
FIRST_S = 1.0


@dataclass
class Seen:
    """What became of each request: (when, answer), and the errors."""

    answers: list[tuple[float, Answer]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    sent: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, until: Callable[["Seen"], bool], timeout_s: float = WAIT_S) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: until(self), timeout_s)

    def first(self, after: float, *ranks: int) -> float | None:
        """When the first answer of some ranks came after a time; None if none did."""
        return next((at for at, answer in self.answers if at > after and answer.rank in ranks), None)

    def done(self, reply: "object") -> None:
        with self.changed:
            if (error := reply.exception()) is not None:  # type: ignore[attr-defined]
                self.errors.append(error)
            else:
                self.answers.append((time.monotonic(), reply.result()))  # type: ignore[attr-defined]
            self.changed.notify_all()


@pytest.fixture(scope="module")
def house(kind: BrokerKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("checkpoints")
    make_vit_classifier(folder / MODELS[2])
    tiny = definition(folder, MODELS[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        found = Cluster(NODES, kind=kind, threads=1, checkpoints=dict.fromkeys(NODES, folder))
        found.environment["S2M3_STEADY_S"] = str(STEADY_S)
        with found, Site(found.settings) as site:
            assert site.wait(lambda s: s.nodes.ready == set(NODES), READY_S)
            further = [m.StandIn(model=MODELS[1]), m.StandIn(model=MODELS[2], definition=tiny)]
            add_task(site, "porch", m.TaskSpec(model=MODELS[0], stand_ins=further, deadline_s=DEADLINE_S))
            _whole(found, site)
            yield found


def _whole(cluster: Cluster, site: Site) -> None:
    """The best model needs the desktop, and a further one is warm elsewhere."""
    assert site.wait(lambda s: s.nodes.ready == set(NODES) and _is_whole(s), READY_S), cluster.log("planner")


def _is_whole(site: Site) -> bool:
    docs = site.routes["porch"].by_rank if "porch" in site.routes else ()
    held = [{step.module: {one.node for one in step.replicas} for step in doc.steps.values()} for doc in docs]
    if len(held) < len(MODELS) or held[0][ALONE] != {"desktop"} or not all(held[0].values()):
        return False
    return any(all(nodes - {"desktop"} for nodes in modules.values()) for modules in held[1:])


def _is_loaded(site: Site) -> bool:
    """The desktop's new process holds what no other node can."""
    reported = site.reported.get("desktop")
    if "desktop" not in site.nodes.ready or reported is None or reported.boot != site.nodes.boot("desktop"):
        return False
    return ALONE in reported.modules and reported.modules[ALONE].state == "ready"


@contextmanager
def load(cluster: Cluster) -> Iterator[Seen]:
    """Requests at a steady rate from a thread of their own; every fifth has a new picture, which has to be computed."""
    seen, ended = Seen(), threading.Event()
    picture = sample("blue-circle.png").read_bytes()

    def ask(client: Client) -> None:
        began = time.monotonic()
        while not ended.wait(max(0.0, began + seen.sent / RATE - time.monotonic())):
            seen.sent += 1
            made = (seen.sent // SAME).to_bytes(4, "big")  # what follows a picture's end makes another file of it
            reply = client.submit("porch", image=picture + made, text="which shape is it?")
            reply.add_done_callback(seen.done)

    with Client(settings=cluster.settings) as client:
        thread = threading.Thread(target=ask, args=(client,))
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()
        assert seen.wait(lambda one: len(one.answers) + len(one.errors) >= one.sent)


@pytest.mark.parametrize("planner", ["planner alive", "planner dead"])
def test_the_next_rank_answers_within_a_second_of_the_kill_and_the_best_again_when_it_is_back(
    house: Cluster, say: Say, planner: str
) -> None:
    with Site(house.settings) as site, load(house) as seen:
        assert seen.wait(lambda one: sum(answer.rank == 0 for _, answer in one.answers) >= 3 * RATE, READY_S)
        if planner == "planner dead":
            house.kill("planner")
            assert site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
        house.kill("desktop")
        killed = time.monotonic()
        assert seen.wait(lambda one: one.first(killed, 1, 2) is not None)
        assert seen.wait(lambda one: one.answers[-1][0] > killed + STEADY_S)
        started = time.monotonic()
        house.start_agent("desktop")
        if planner == "planner dead":
            house.start_planner()
        assert site.wait(_is_loaded, READY_S), house.log("desktop")
        loaded = time.monotonic()
        assert seen.wait(lambda one: one.first(started, 0) is not None, READY_S), house.log("planner")
        back = seen.first(started, 0) or 0.0
        assert seen.wait(lambda one: one.answers[-1][0] > back + STEADY_S)
    first = seen.first(killed, 1, 2) or 0.0
    said = Counter((answer.rank, answer.model, answer.value) for _, answer in seen.answers)
    again = f"{back - started:.1f} s after its agent's start, {back - loaded:.1f} s after it was loaded"
    say(
        f"{house.broker.kind}, {planner}: {seen.sent} requests at {RATE} a second, {len(seen.errors)} errors\n"
        f"    first answer of the next rank {first - killed:.2f} s after the kill; the best again {again}, "
        f"{STEADY_S:g} of them to be steady\n    {dict(said)}"
    )
    assert seen.errors == []
    assert {(rank, model) for rank, model, _ in said} <= set(enumerate(MODELS))
    assert {value for rank, _, value in said if rank == 0} == {"circle"}
    assert len(said) == len({rank for rank, _, _ in said}), "each model says the same of the same picture"
    assert first - killed <= FIRST_S
    assert back - loaded <= STEADY_S + FIRST_S
