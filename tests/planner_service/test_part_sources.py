"""A node that lacks a part counts as able to hold the part if another node sends it, at the price of the transfer."""

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.part_sources import Sender, Senders, fetch_price_s
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.messages import ModuleReport, Reported
from s2m3.schemas.parts import PartStock, part_key
from tests.planner_service.site import lose, make_facts

SPEC = shipped_catalogue().modules["minilm"].model_copy(update={"source": "/models/clip"})
NODES = {"laptop": 1000.0, "pi": 1000.0, "hub": 1000.0}


def site(**stocks: PartStock | None) -> ClusterState:
    """Nodes that all know the class; those named exchange parts."""
    cluster = make_facts(nodes=NODES)
    for node, stock in stocks.items():
        sources = [*cluster.profiles[node].sources, *(stock.sources if stock is not None else [])]
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"parts": stock, "sources": sources})
    return cluster


def able(cluster: ClusterState, spec: ModuleSpec = SPEC) -> set[str]:
    return {node for node in cluster.usable() if cluster.can_load(spec, node, 0.0)}


def has() -> PartStock:
    return PartStock(sources=[SPEC.source])


def test_a_node_that_exchanges_parts_is_able_as_long_as_one_that_sends_the_part_is_present() -> None:
    cluster = site(laptop=has(), pi=PartStock())
    assert able(cluster) == {"laptop", "pi"}
    lose(cluster, "laptop")
    assert able(cluster) == set()


def test_a_source_that_a_node_has_but_does_not_send_is_no_source_for_others() -> None:
    """A wheel of weights is among the sources of a profile, and no part of a checkpoint."""
    assert able(site(laptop=PartStock(), pi=PartStock(), hub=PartStock()), SPEC) == set()
    cluster = site(pi=PartStock())
    cluster.profiles["laptop"] = cluster.profiles["laptop"].model_copy(update={"sources": [SPEC.source]})
    assert able(cluster) == {"laptop"}


def test_a_copy_in_a_cache_is_as_good_for_its_node_and_for_others() -> None:
    cluster = site(laptop=PartStock(keys=[part_key(SPEC)]), pi=PartStock())
    assert able(cluster) == {"laptop", "pi"}
    other = SPEC.model_copy(update={"prefix": "another"})
    assert able(cluster, other) == set()


def test_an_adapter_has_to_be_where_its_base_is() -> None:
    adapted = SPEC.model_copy(update={"config": {"adapter": "/models/lora"}})
    assert "pi" not in able(site(laptop=has(), pi=PartStock()), adapted)
    both = PartStock(sources=[SPEC.source, "/models/lora"])
    assert "pi" in able(site(laptop=both, pi=PartStock()), adapted)


@pytest.mark.parametrize("state", ["loading", "ready"])
def test_what_is_under_way_or_served_stays_when_its_sender_is_gone(state: str) -> None:
    cluster = site(laptop=has(), pi=PartStock())
    lose(cluster, "laptop")
    report = ModuleReport.model_validate({"state": state})
    cluster.reported["pi"] = Reported(boot="1", modules={SPEC.id: report})
    assert able(cluster) == {"pi"}


def test_the_transfer_costs_its_time_over_half_of_the_slower_link_shared_by_a_thousand_requests() -> None:
    cluster = site(laptop=has(), pi=PartStock(), hub=has())
    slow = {"laptop": 10.0, "hub": 40.0, "pi": 100.0}
    for node, mbps in slow.items():
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"mbps": mbps})
    assert Senders(cluster.profiles).best(SPEC) == [Sender("hub", 40.0), Sender("laptop", 10.0)]
    price = fetch_price_s(SPEC, cluster.profiles["pi"], Sender("hub", 40.0))
    assert price == pytest.approx(SPEC.memory_mb * 8 / 20.0 / 1000)
    assert fetch_price_s(SPEC, cluster.profiles["laptop"], Sender("hub", 40.0)) == 0.0
    assert cluster.seconds(SPEC, "pi") == pytest.approx(cluster.seconds(SPEC, "laptop") + price)
    no_other = site(laptop=has(), hub=PartStock())
    assert no_other.seconds(SPEC, "hub") > no_other.seconds(SPEC, "laptop")


def test_a_part_that_has_come_costs_nothing_more() -> None:
    cluster = site(laptop=has(), pi=PartStock())
    before = cluster.seconds(SPEC, "pi")
    cluster.reported["pi"] = Reported(boot="1", modules={SPEC.id: ModuleReport(state="ready")})
    assert cluster.seconds(SPEC, "pi") == cluster.seconds(SPEC, "laptop") < before


def without_torch(cluster: ClusterState, node: str, **fields: object) -> None:
    """Makes a node one that serves the class of exports alone."""
    kept = [name for name in cluster.profiles[node].classes if name != SPEC.class_]
    update = {"classes": kept, "exported": [SPEC.class_], "runtimes": ["onnx"], **fields}
    cluster.profiles[node] = cluster.profiles[node].model_copy(update=update)


def test_a_node_without_torch_is_able_while_one_that_exports_the_part_is_present() -> None:
    maker = PartStock(sources=[SPEC.source], exports=[SPEC.class_])
    cluster = site(laptop=maker, pi=PartStock())
    without_torch(cluster, "pi")
    assert able(cluster) == {"laptop", "pi"}
    assert cluster.seconds(SPEC, "pi") > cluster.seconds(SPEC, "laptop"), "the transfer has its price"
    lose(cluster, "laptop")
    assert able(cluster) == set()


def test_the_checkpoint_alone_is_nothing_to_a_node_without_torch() -> None:
    cluster = site(laptop=has(), pi=has())
    without_torch(cluster, "pi")
    assert able(cluster) == {"laptop"}


def test_an_export_in_a_cache_serves_its_node_and_others_without_torch() -> None:
    key = part_key(SPEC, "onnx")
    cluster = site(laptop=PartStock(), pi=PartStock(keys=[key]), hub=PartStock())
    without_torch(cluster, "pi")
    without_torch(cluster, "hub")
    assert able(cluster) == {"pi", "hub"}
    without_torch(cluster, "hub", dtype="int8")
    assert able(cluster) == {"pi"}, "an export in another dtype is another part"
