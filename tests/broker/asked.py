"""A requester's tracker and what it says, for tests: a task of two steps, its documents, answers and errors."""

import random

from s2m3.broker.requests.actions import Action, Finish, Result, Send
from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.messages import NodeState, Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.work import Answer, Work

ID = b"1" * 16


def route(*nodes: str, **changes: object) -> RouteDoc:
    replicas = [Replica(node=node, ms=10) for node in nodes]
    steps = {
        "encode": RouteStep(module="e", inputs={"x": "input.x"}, outputs=["code"], replicas=replicas),
        "head": RouteStep(module="h", inputs={"c": "encode.code"}, outputs=["out"], replicas=replicas),
    }
    doc = RouteDoc(epoch=3, revision=1, model="m", inputs={"x": "text"}, answer=["out"], deadline_s=10, steps=steps)
    return doc.model_copy(update=changes)


def requests(*nodes: str) -> RequestTracker:
    made = RequestTracker("inbox", random.Random(7))  # noqa: S311  # spreads retries, keeps no secret
    if nodes:
        made.on_route("t", route(*nodes), 0.0)
    return made


def sent(actions: list[Action]) -> Work:
    (action,) = actions
    assert isinstance(action, Send)
    return action.work


def result(actions: list[Action]) -> Result:
    (action,) = actions
    assert isinstance(action, Finish)
    return action.result


def failed(actions: list[Action]) -> S2M3Error:
    error = result(actions).error
    assert error is not None
    return error


def ok(attempt: int = 1) -> Answer:
    return Answer(ID, "head", attempt, {"out": "yes"})


def refused(error: S2M3Error, attempt: int = 1) -> Answer:
    return Answer(ID, "encode", attempt, error=error)


def ready(boot: str = "1") -> NodeState:
    return NodeState(state="ready", boot=boot)


def lost(boot: str = "1") -> NodeState:
    return NodeState(state="lost", boot=boot)
