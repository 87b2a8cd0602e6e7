"""After a loss, routes change that named the lost node, and no others: second copies of other modules stay in place."""

from tests.planner_service.planned_site import PlannedSite


def test_after_a_loss_only_routes_change_that_named_the_lost_node() -> None:
    site = PlannedSite(4, memory_mb=350.0)
    site.settle()
    for _ in range(2):
        named = site.named()
        holding = sorted(set().union(*named.values()))
        lost = holding[len(holding) // 2]
        site.lose(lost)
        changed = site.settle()
        assert set(changed) == {task for task, nodes in named.items() if lost in nodes}
        assert all(lost not in nodes for nodes in site.named().values())
