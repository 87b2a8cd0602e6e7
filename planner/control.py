"""Control requests to the planner (`control/<verb>`): decoding, checking and the response. Pure."""

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
    """Handles a control request by replanning, and returns the response; a bad request becomes an error response.

    Args:
        verb: replan, drain or profile.
        payload: The JSON request; empty for one without fields.
        present: The nodes that are present.
        plan_again: Replans and returns the response's `data`.
    """
    transaction = None
    try:
        request = topics.CONTROL.decode(payload or b"{}")
        transaction = request.transaction
        if verb == "drain" and (request.node is None or request.node not in present):
            raise BadInputError(f"drain needs the name of a node that is there, not {request.node!r}")
    except S2M3Error as error:
        body = m.ErrorBody(**error.as_dict())
        return m.ControlResponse(status="error", error=body, transaction=transaction)
    return m.ControlResponse(status="ok", data=plan_again(), transaction=transaction)
