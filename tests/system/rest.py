"""When a site rests: every node holds what its plan names. Who waits for that does not depend on what still moves."""

from collections import Counter
from itertools import chain

from s2m3.snapshot import Site
from tests.conftest import WAIT_S

__all__ = ["is_at_rest", "planned", "settled"]


def planned(site: Site) -> dict[str, list[str]]:
    """Returns the modules that each node's plan names, by node."""
    return {node: sorted(spec.id for spec in plan.modules) for node, plan in site.plans.items()}


def is_at_rest(site: Site, task: str = "noop") -> bool:
    """Whether a task is ready, and every node holds the modules that its plan names, no more."""
    held = {
        node: sorted(name for name, state in reported.modules.items() if state.state == "ready")
        for node, reported in site.reported.items()
    }
    return site.ready(task) and planned(site) == held and any(held.values())


def settled(site: Site, task: str = "noop", *, copies: int = 2) -> dict[str, list[str]]:
    """Waits until each module has its copies, and no plan changes any more; returns what `planned` does.

    Second copies come with a thorough plan, after the quick one: two is for a planner that fills spare memory.
    """
    assert site.wait(lambda s: is_at_rest(s, task) and _copies(s) == {copies}, WAIT_S), planned(site)
    found = planned(site)
    changed = site.wait(lambda s: planned(s) != found, 2.0)
    return settled(site, task, copies=copies) if changed else found


def _copies(site: Site) -> set[int]:
    return set(Counter(chain(*planned(site).values())).values())
