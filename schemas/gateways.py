"""Which node is the gateway of a task, by the retained plans."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from s2m3.schemas.messages import Plan

__all__ = ["gateway_of"]


def gateway_of(task: str, plans: Mapping[str, Plan], present: AbstractSet[str]) -> str | None:
    """Returns the present node whose plan names it as the gateway of a task; None if there is none."""
    return next((node for node, plan in plans.items() if node in present and task in plan.gateways), None)
