"""Control requests of the command line, and their responses."""

import secrets
import threading
from typing import Any

from s2m3.broker.mqtt.documents import listen
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error, error_from_code
from s2m3.snapshot import Site

__all__ = ["order"]

_ANSWER_S = 10.0


def order(site: Site, verb: str, node: str | None, owner: str = "planner", **more: Any) -> m.ControlResponse:
    """Publishes a control request and returns the response of the service that carries it out.

    Args:
        site: The site.
        verb: The verb: `control/<verb>`.
        node: The node that the request is about.
        owner: The name of that service, for the error.
        **more: Further fields of the request.

    Raises:
        S2M3Error: It was refused, or nobody answered.
    """
    transaction = secrets.token_hex(8)
    answered = threading.Event()
    responses: list[m.ControlResponse] = []

    def supervise(_: str, response: m.ControlResponse | None) -> None:
        if response is not None and response.transaction == transaction:
            responses.append(response)
            answered.set()

    confirmed = threading.Event()
    listen(site.link, topics.CONTROL_RESPONSE, supervise, on_subscribed=confirmed.set, verb=verb)
    confirmed.wait(_ANSWER_S)
    order = m.ControlRequest(transaction=transaction, node=node, **more)
    site.publish(topics.CONTROL, order.encode(), verb=verb)
    if not answered.wait(_ANSWER_S):
        raise S2M3Error(f"no {owner} answered the order {verb!r} in {_ANSWER_S:g} s; does one run? s2m3 status")
    response = responses[0]
    if response.error is not None:
        raise error_from_code(response.error.code, response.error.detail)
    return response
