"""Orders to the planner (`control/<verb>`): read, checked, and answered. Pure."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, S2M3Error

__all__ = ["handle_control"]


def handle_control(
    verb: str, payload: bytes, present: AbstractSet[str], plan_again: Callable[[], dict[str, Any]]
) -> m.ControlResponse:
    """Does what an order says and returns the response to it.

    Args:
        verb: replan, drain or profile.
        payload: The order.
        present: The nodes that are there.
        plan_again: Plans afresh, and returns what to tell of it.
    """
    transaction = None
    try:
        order = topics.CONTROL.decode(payload or b"{}")
        transaction = order.transaction
        if verb == "drain" and (order.node is None or order.node not in present):
            raise BadInputError(f"drain needs the name of a node that is there, not {order.node!r}")
    except S2M3Error as error:
        body = m.ErrorBody(**error.as_dict())
        return m.ControlResponse(status="error", error=body, transaction=transaction)
    return m.ControlResponse(status="ok", data=plan_again(), transaction=transaction)
