"""A site with the task `porch`, which has three models: three nodes that hold them, and one that is its gateway."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.schemas.specs import Definition
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.frozen import freeze, thaw

MODELS = ("best", "second", "third")
#: The gateway, without memory for a model, and three nodes: for the best model, its second copy, and the stand-ins.
NODES = {"a": 20.0, "b": 150.0, "c": 150.0, "d": 150.0}
#: How long a model that came back stays before it answers, seconds.
STEADY_S = 1.0
BELL, SAID = "door/bell", "door/said"


def definition(name: str, memory_mb: float = 0.1) -> Definition:
    """A model of one module without weights, of a size, unlike those of other names."""
    module = {
        "id": name,
        "role": "vision-encoder",
        "class": "noop-encoder",
        "source": "none",
        "prefix": name,
        "inputs": {"data": "data"},
        "outputs": {"code": "data"},
        "memory_mb": memory_mb,
    }
    steps = {"look": {"module": name, "inputs": {"data": "input.data"}}}
    model = {"id": name, "description": name, "inputs": {"data": "data"}, "steps": steps, "answer": ["code"]}
    return Definition.model_validate({"model": model, "modules": [module]})


@contextmanager
def ranked_site(kind: BrokerKind, *, page: bool = False) -> Iterator[Cluster]:
    """The site, once the task is ready, with a bridge that binds BELL to the task and publishes on SAID."""
    found = Cluster(NODES, kind=kind, threads=1, bridge=True, page=page)
    found.environment["S2M3_STEADY_S"] = str(STEADY_S)
    with found, Site(found.settings) as site:
        best, *further = MODELS
        stand_ins = [m.StandIn(model=name, definition=definition(name)) for name in further]
        spec = m.TaskSpec(model=best, definition=definition(best), stand_ins=stand_ins, deadline_s=10)
        assert site.wait(lambda s: s.nodes.ready == set(NODES), WAIT_S)
        add_task(site, "porch", spec)
        bell = Binding(source=BELL, task="porch", input="data", publish=SAID, every_s=0.0)
        site.publish(topics.BIND, bell.encode(), binding="porch")
        whole(found, site)
        yield found


def whole(cluster: Cluster, site: Site) -> None:
    """Starts what was killed, and waits until all models are where they are without losses."""
    start = {"planner": cluster.start_planner, "bridge": cluster.start_bridge}
    for name, process in list(cluster.processes.items()):
        if process.poll() is not None:
            start[name]() if name in start else cluster.start_agent(name)
    assert site.wait(lambda s: s.nodes.ready == set(NODES) and "porch" in s.reports, WAIT_S), cluster.log("bridge")
    assert site.wait(lambda s: sorted(map(len, holders(s))) == [1, 1, 2], WAIT_S), cluster.log("planner")
    assert site.wait(lambda s: any("porch" in plan.gateways for plan in s.plans.values()), WAIT_S)


def holders(site: Site) -> list[list[str]]:
    """The nodes with a ready copy of each of the task's models."""
    docs = site.routes["porch"].by_rank if "porch" in site.routes else ()
    found = [[r.node for step in doc.steps.values() for r in step.replicas] for doc in docs]
    return found or [[]]


def stand_in(site: Site) -> int:
    """The rank that answers when all nodes with the best model are gone: spare memory may hold copies side by side."""
    best, *further = holders(site)
    return next(rank for rank, nodes in enumerate(further, start=1) if set(nodes) - set(best))


def kill_the_best(cluster: Cluster, site: Site) -> tuple[float, int]:
    """Kills all nodes with the best model; returns when, monotonic seconds, and the rank that answers from then on.

    The planner, if it runs, is stopped until all are known to be lost: else it places the best model elsewhere in
    between, where another copy of it answers, and no stand-in is needed.
    """
    best, rank, planner = holders(site)[0], stand_in(site), cluster.processes["planner"]
    is_running = planner.poll() is None
    if is_running:
        freeze(planner)
    for node in best:
        cluster.kill(node)
    assert site.wait(lambda s: s.nodes.lost.issuperset(best), WAIT_S)
    when = time.monotonic()
    if is_running:
        thaw(planner)
    return when, rank
