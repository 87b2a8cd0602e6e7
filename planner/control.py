"""Control requests to the planner (`control/<verb>`): decoding, checking and the response."""

from collections.abc import Callable
from typing import Any

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.near_names import among

__all__ = ["handle_control", "listen_for_control"]

#: The verbs of the first release; its access list lacks the others.
_REQUIRED = ("replan", "drain", "profile")
#: Orders to a node, which it carries out itself: its new state is what causes a plan.
_OF_THE_NODE = ("sleep", "undrain")


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
        verb: replan, drain, undrain, sleep, wake or profile.
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
    data = {} if verb in _OF_THE_NODE else plan_again()
    return m.ControlResponse(status="ok", data=data, transaction=transaction)


def _check_drain(cluster: ClusterState, node: str | None) -> None:
    _check_present(cluster, node, "drain")


def _check_undrain(cluster: ClusterState, node: str | None) -> None:
    _check_present(cluster, node, "undrain")


def _check_present(cluster: ClusterState, node: str | None, verb: str) -> None:
    if node not in cluster.nodes.present:
        there = among(cluster.nodes.present, node)
        raise BadInputError(f"{verb} needs the name of a node that is there, not {node!r}; there are: {there}")


def _check_sleep(cluster: ClusterState, node: str | None) -> None:
    _check_present(cluster, node, "sleep")
    profile = cluster.profiles.get(node or "")
    if profile is None or not profile.sleeps:
        raise BadInputError(f"{node} has no command that puts its machine to sleep: s2m3 agent --sleep-command")


def _check_wake(cluster: ClusterState, node: str | None) -> None:
    if node not in (sleeping := cluster.sleeping()):
        known = among(sleeping, node)
        raise BadInputError(f"wake needs the name of a node that left in order and has a wake address ({known})")


_CHECKS = {"drain": _check_drain, "undrain": _check_undrain, "sleep": _check_sleep, "wake": _check_wake}
