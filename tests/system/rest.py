"""When a site rests: every node holds what its plan names. Who waits for that does not depend on what still moves."""

from collections import Counter
from itertools import chain

from s2m3.snapshot import Site
from tests.conftest import WAIT_S

__all__ = ["is_at_rest", "planned", "settled"]


def planned(site: Site) -> dict[str, list[str]]:
    """Returns the modules that each node's plan names, by node."""
    return {node: sorted(spec.id for spec in plan.modules) for node, plan in site.plans.items()}


def is_at_rest(site: Site) -> bool:
    """Whether the task `noop` is ready, and every node holds the modules that its plan names, no more."""
    held = {
        node: sorted(name for name, state in reported.modules.items() if state.state == "ready")
        for node, reported in site.reported.items()
    }
    return site.ready("noop") and planned(site) == held and any(held.values())


def settled(site: Site) -> dict[str, list[str]]:
    """Waits until each module has its second copy too, and no plan changes any more; returns what `planned` does."""
    assert site.wait(lambda s: is_at_rest(s) and _is_copied(s), WAIT_S), planned(site)
    found = planned(site)
    return settled(site) if site.wait(lambda s: planned(s) != found, 2.0) else found


def _is_copied(site: Site) -> bool:
    """Whether each module is on two nodes: second copies come with a thorough plan, after the quick one."""
    return set(Counter(chain(*planned(site).values())).values()) == {2}
