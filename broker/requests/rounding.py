"""Marks the steps of a route that may round their outputs: those that send them over a slow link. Pure."""

from collections.abc import Callable
from dataclasses import replace

from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.wire.work import Route, following

__all__ = ["pays", "with_tolerance"]

#: The number of the release whose agents round and widen tensors.
_PROTOCOL = 1
#: Mbit/s of the slower of two links. Up to it, halving the bytes saves more time than rounding and widening take.
_PAYS_MBPS = 1_000.0


def pays(mbps: float) -> bool:
    """Returns whether rounding tensors pays on a link, 10^6 bits a second."""
    return mbps <= _PAYS_MBPS


def with_tolerance(doc: RouteDoc, route: Route, protocol_of: Callable[[str], int]) -> Route:
    """Returns the route with the task's tolerance at the steps that send outputs over a slow link.

    Every agent of a route reads the whole route, so no step gets the tolerance if one agent does not know the field.

    Args:
        doc: The route document of the model that the route is along: its links were measured by the nodes.
        route: The chosen nodes.
        protocol_of: Node -> the protocol number of its agent.
    """
    if not doc.tolerance or min(protocol_of(hop.node) for hop in route.values()) < _PROTOCOL:
        return route
    mbps = {step: {r.node: r.mbps for r in doc.steps[step].replicas}.get(hop.node, 0.0) for step, hop in route.items()}
    found = dict(route)
    for step, hop in route.items():
        others = [name for name in following(route, step) if route[name].node != hop.node]
        if any(pays(min(mbps[step], mbps[name])) for name in others):
            found[step] = replace(hop, tolerance=doc.tolerance)
    return found
