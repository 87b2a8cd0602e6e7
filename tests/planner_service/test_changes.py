"""A node lost or new, from facts to documents: only whoever is concerned is told, and nothing else moves."""

from hypothesis import given, settings
from hypothesis import strategies as st

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.placement import place
from s2m3.planner.site.placer import placer
from s2m3.planner.site.published_documents import Documents
from tests.planner_service.site import hold, join, lose, make_facts

TASKS = ("retrieval", "classification", "vqa", "transcription", "spoken-retrieval", "spoken-intent")
NODES = ("a", "b", "c", "d", "e")
_LOOK_FOR_BETTER, _MEND = (placer(0.05)(improve) for improve in (True, False))

#: Each node has room for any two modules more than its share: nothing has to make way for what was lost.
sites = st.tuples(
    st.sets(st.sampled_from(TASKS), min_size=1),
    st.lists(st.floats(300.0, 400.0), min_size=5, max_size=5),
    st.sampled_from(NODES),
)


def told_until_still(cluster: ClusterState, documents: Documents, *, improve: bool) -> set[str]:
    """Plans, lets the nodes load what they are told, and plans again until nothing is said; returns who was told."""
    told: set[str] = set()
    for _ in range(20):
        said: dict[str, bytes] = {}
        placement = place(cluster, _LOOK_FOR_BETTER if improve else _MEND, 0.0)
        documents.update(decide(cluster, placement), said.__setitem__)
        if not said:
            return told
        told |= said.keys()
        cluster.plans = dict(documents.plans)
        for node in cluster.nodes.present:
            hold(cluster, node, *(spec.id for spec in cluster.plans[node].modules), planned=False)
    raise AssertionError("the planner does not come to rest")


def held(documents: Documents) -> dict[str, set[str]]:
    return {node: {spec.id for spec in plan.modules} for node, plan in documents.plans.items()}


def gateways(documents: Documents) -> dict[str, str]:
    return {task: node for node, plan in documents.plans.items() for task in plan.gateways}


@settings(max_examples=15)
@given(sites)
def test_a_loss_is_told_to_the_nodes_that_take_over_and_to_the_tasks_that_used_it(
    site: tuple[set[str], list[float], str],
) -> None:
    tasks, memory, victim = site
    cluster, documents = make_facts(*tasks, nodes=dict(zip(NODES, memory, strict=True))), Documents("r", epoch=1)
    told_until_still(cluster, documents, improve=True)
    before, gateways_before = held(documents), gateways(documents)
    lose(cluster, victim)
    told = told_until_still(cluster, documents, improve=False)
    after = held(documents)
    gained = {node: modules - before[node] for node, modules in after.items()}
    assert set().union(*gained.values()) == before[victim]
    assert all(before[node] <= modules for node, modules in after.items())
    new_gateways = {node for task, node in gateways(documents).items() if gateways_before[task] == victim}
    concerned = {f"r/plan/{node}" for node, modules in gained.items() if modules} | {
        f"r/plan/{n}" for n in new_gateways
    }
    used = {task for task in tasks if before[victim] & set(cluster.catalogue.models[task].module_ids)}
    assert told == concerned | {f"r/plan/{victim}"} | {f"r/route/{task}" for task in used}


@settings(max_examples=8)
@given(sites)
def test_a_node_that_joins_and_is_not_needed_is_told_that_it_holds_nothing_and_nobody_else_hears(
    site: tuple[set[str], list[float], str],
) -> None:
    tasks, memory, _ = site
    cluster, documents = make_facts(*tasks, nodes=dict(zip(NODES, memory, strict=True))), Documents("r", epoch=1)
    told_until_still(cluster, documents, improve=True)
    join(cluster, "late")
    assert told_until_still(cluster, documents, improve=False) == {"r/plan/late"}
