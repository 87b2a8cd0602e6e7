"""From which nodes a node that lacks a part of a checkpoint can get the part, and what that costs. Pure."""

from collections.abc import Mapping

from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.messages import NodeProfile
from s2m3.schemas.parts import PartStock, part_key

__all__ = ["can_fetch", "fetch_price_s", "has_part"]

#: Part of the slower link that a transfer gets: requests come first.
_LINK_SHARE = 0.5
#: Requests within which a better place must make up for the transfer, as for loads (planner/solving/replan.py).
_PAYBACK_REQUESTS = 1000.0


def _sends(stock: PartStock, spec: ModuleSpec) -> bool:
    wanted = {spec.source, *filter(None, [spec.config.get(ADAPTER)])}
    return wanted <= set(stock.sources) or part_key(spec) in stock.keys


def has_part(spec: ModuleSpec, profile: NodeProfile) -> bool:
    """Returns whether a node need not fetch a module's part: its source, or the part itself, is on the node's disk."""
    return spec.source in profile.sources or (profile.parts is not None and part_key(spec) in profile.parts.keys)


def can_fetch(spec: ModuleSpec, node: str, present: Mapping[str, NodeProfile]) -> bool:
    """Returns whether another present node sends a module's part to a node.

    Args:
        spec: The module.
        node: The node that lacks the part.
        present: The present nodes' profiles.
    """
    if present[node].parts is None:
        return False
    stocks = (profile.parts for name, profile in present.items() if name != node)
    return any(stock is not None and _sends(stock, spec) for stock in stocks)


def fetch_price_s(spec: ModuleSpec, node: str, present: Mapping[str, NodeProfile]) -> float:
    """Returns what fetching a module's part costs each request on a node, seconds; 0 if the node has the part.

    It is the time of the transfer over the measured links, divided by the requests that have to make up for it.
    """
    if has_part(spec, present[node]):
        return 0.0
    stocks = [(profile.mbps, profile.parts) for name, profile in present.items() if name != node]
    links = [mbps for mbps, stock in stocks if stock is not None and _sends(stock, spec)]
    if not links:
        return 0.0
    mbps = min(present[node].mbps, max(links)) * _LINK_SHARE
    return spec.memory_mb * 8 / mbps / _PAYBACK_REQUESTS
