"""Control requests to the planner (`control/<verb>`): decoding, checking and the response."""

from collections.abc import Callable
from typing import Any

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, S2M3Error

__all__ = ["handle_control", "listen_for_control"]

#: The verbs of releases before nodes slept; an access list of theirs lacks the others.
_REQUIRED = ("replan", "drain", "profile")


def listen_for_control(
    link: Link,
    cluster: ClusterState,
    *,
    plan_again: Callable[[], dict[str, Any]],
    wake: Callable[[str], None],
    publish: Callable[[str, bytes], object],
) -> None:
    """Answers control requests from now on.

    Args:
        link: The planner's connection.
        cluster: The cluster state.
        plan_again: Replans and returns the response's `data`.
        wake: Has a sleeping node woken.
        publish: Publishes a message, given topic and payload.
    """

    def answer(message: Message) -> None:
        verb = (topics.CONTROL.ids(link.root, message.topic) or {})["verb"]
        response = handle_control(verb, message.payload, cluster, plan_again=plan_again, wake=wake)
        publish(topics.CONTROL_RESPONSE.at(link.root, verb=verb), response.encode())

    for verb in topics.VERBS:
        link.subscribe(topics.CONTROL.at(link.root, verb=verb), answer, required=verb in _REQUIRED)


def handle_control(
    verb: str,
    payload: bytes,
    cluster: ClusterState,
    *,
    plan_again: Callable[[], dict[str, Any]],
    wake: Callable[[str], None],
) -> m.ControlResponse:
    """Handles a control request, and returns the response; a bad request becomes an error response.

    Args:
        verb: replan, drain, sleep, wake or profile.
        payload: The JSON request; empty for one without fields.
        cluster: The cluster state.
        plan_again: Replans and returns the response's `data`.
        wake: Has a sleeping node woken.
    """
    transaction = None
    try:
        request = topics.CONTROL.decode(payload or b"{}")
        transaction = request.transaction
        if verb in _CHECKS:
            _CHECKS[verb](cluster, request.node)
    except S2M3Error as error:
        body = m.ErrorBody(**error.as_dict())
        return m.ControlResponse(status="error", error=body, transaction=transaction)
    if verb == "wake" and request.node is not None:
        wake(request.node)
        return m.ControlResponse(status="ok", transaction=transaction)
    # a node that is to sleep heard the order too, and says that it is draining
    return m.ControlResponse(status="ok", data=plan_again() if verb != "sleep" else {}, transaction=transaction)


def _check_drain(cluster: ClusterState, node: str | None) -> None:
    if node not in cluster.nodes.present:
        raise BadInputError(f"drain needs the name of a node that is there, not {node!r}")


def _check_sleep(cluster: ClusterState, node: str | None) -> None:
    if node not in cluster.nodes.present:
        raise BadInputError(f"sleep needs the name of a node that is there, not {node!r}")
    profile = cluster.profiles.get(node or "")
    if profile is None or not profile.sleeps:
        raise BadInputError(f"{node} has no command that puts its machine to sleep: s2m3 agent --sleep-command")


def _check_wake(cluster: ClusterState, node: str | None) -> None:
    if node not in (sleeping := cluster.sleeping()):
        known = ", ".join(sleeping) or "none"
        raise BadInputError(f"wake needs the name of a node that left in order and has a wake address ({known})")


_CHECKS = {"drain": _check_drain, "sleep": _check_sleep, "wake": _check_wake}
