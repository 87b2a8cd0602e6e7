"""What each kind of party may do, as topics: where every access list comes from. Knows no broker's syntax."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from s2m3.schemas import topics as t
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import check_id

__all__ = ["ROLES", "Rights", "Role", "check_login_name", "rights_of"]

Role = Literal["planner", "agent", "client", "device", "operator", "viewer", "home-assistant", "bridge", "neighbour"]
ROLES: tuple[Role, ...] = get_args(Role)
#: Inboxes that are not named after a login: nobody else may be called so.
_RESERVED = re.compile(r"(node|probe)-.*|bridge")
_VERBS = ("replan", "drain", "profile")
_TOLD_TO_ALL: tuple[t.TopicPath, ...] = (
    t.PLANNER_STATE,
    t.PLANNER_HEALTH,
    t.NODE_STATE,
    t.NODE_PROFILE,
    t.NODE_REPORTED,
    t.NODE_LOAD,
    t.TASK,
    t.PLAN,
    t.ROUTE,
    t.EVENT,
)
_BRIDGE_TELLS: tuple[t.TopicPath, ...] = (
    t.BRIDGE_STATE,
    t.BRIDGE_BINDING,
    t.BRIDGE_NODE,
    t.BRIDGE_PLANNER,
    t.BRIDGE_TASK,
    t.BRIDGE_ANSWER,
    t.BRIDGE_ANSWERED,
    t.BRIDGE_PICTURE,
)


@dataclass(frozen=True, slots=True)
class Rights:
    """Topic filters that a login may read and write."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __add__(self, other: "Rights") -> "Rights":
        return Rights(self.reads + other.reads, self.writes + other.writes)


def check_login_name(role: Role, name: str) -> str:
    """Returns a login's name.

    Raises:
        BadInputError: It is no id, or it is the name of somebody else's inbox.
    """
    check_id(name, "name")
    if _RESERVED.fullmatch(name) and role != "bridge":
        raise BadInputError(f"the name {name!r} is kept for an agent's or the bridge's own inbox")
    return name


def rights_of(root: str, role: Role, name: str, *, tasks: tuple[str, ...] = (), extra: Rights | None = None) -> Rights:
    """Returns what a login may do.

    Args:
        root: First levels of every topic of the site.
        role: What it is.
        name: Its name, which is also its node's or its inbox's.
        tasks: A device: the only tasks it may ask, whose common answers it then reads too (default: all tasks, and
            answers only in its inbox). A viewer: tasks that it may ask as well (default: none). `+` is all.
        extra: Topics outside the root, for bindings and home automation.

    Raises:
        BadInputError: `extra` reaches into the root, where rights come by role only; or a task's name is no id.
    """
    for task in tasks:
        if task != "+":
            check_id(task, "task")
    found = _BY_ROLE[role](root, name, tuple(tasks))
    if extra is None:
        return found
    for topic_filter in (*extra.reads, *extra.writes):
        _check_extra(root, topic_filter)
    return found + extra


def _planner(root: str, _name: str, _tasks: tuple[str, ...]) -> Rights:
    reads = [p for p in _TOLD_TO_ALL if p != t.EVENT]
    writes = (t.PLANNER_STATE, t.PLANNER_HEALTH, t.TASK, t.PLAN, t.ROUTE, t.EVENT, t.CONTROL_RESPONSE)
    # it opens each task's session, with the subscriptions of the gateway that will follow
    doors = (t.REQUEST.all(root), t.REQUEST_INPUT.all(root))
    return Rights((*_all(root, *reads, t.ROLLCALL), *_orders(root), *doors), _all(root, *writes, t.ROLLCALL))


def _agent(root: str, name: str, _tasks: tuple[str, ...]) -> Rights:
    reads = (
        t.PLAN.at(root, node=name),
        t.MODULE_IN.all(root, node=name),
        *(t.CLIENT_IN.at(root, client=f"{kind}-{name}") for kind in ("node", "probe")),
        *_all(root, t.TASK, t.ROUTE, t.NODE_STATE, t.NODE_LOAD, t.ROLLCALL),
        *_all(root, t.REQUEST, t.REQUEST_INPUT),  # any task may get this node as its gateway
        *(t.CONTROL.at(root, verb=verb) for verb in ("drain", "profile")),
    )
    own = (t.NODE_STATE, t.NODE_PROFILE, t.NODE_REPORTED, t.NODE_LOAD)
    writes = (*(p.at(root, node=name) for p in own), *_all(root, t.EVENT, t.MODULE_IN, t.CLIENT_IN, t.RESPONSE))
    return Rights(reads, writes)


def _device(root: str, name: str, tasks: tuple[str, ...]) -> Rights:
    inbox = Rights((t.CLIENT_IN.at(root, client=name),))
    return inbox + _asking(root, tasks or ("+",), answers=bool(tasks))


def _client(root: str, name: str, tasks: tuple[str, ...]) -> Rights:
    own = t.CLIENT_IN.at(root, client=name)  # also written: its own message has to come back before it asks
    direct = Rights(_all(root, t.ROUTE, t.NODE_STATE, t.NODE_LOAD), (*_all(root, t.MODULE_IN), own))
    return _device(root, name, tasks) + direct


def _viewer(root: str, _name: str, tasks: tuple[str, ...]) -> Rights:
    bridge = (t.BIND, t.BRIDGE_STATE, t.BRIDGE_BINDING, t.BRIDGE_TASK)  # not the pictures and answers of the house
    return Rights(_all(root, *_TOLD_TO_ALL, *bridge), _all(root, t.ROLLCALL)) + _asking(root, tasks, answers=True)


def _operator(root: str, name: str, _tasks: tuple[str, ...]) -> Rights:
    forget = (t.NODE_STATE, t.NODE_PROFILE, t.NODE_REPORTED)  # what a node that will not return has left behind
    orders = (*_all(root, t.TASK, t.BIND, *forget), *_orders(root))
    reads = _all(root, t.CONTROL_RESPONSE, t.RESPONSE, *_BRIDGE_TELLS)
    return _viewer(root, name, ()) + _client(root, name, ()) + Rights(reads, orders)


def _home_assistant(root: str, _name: str, _tasks: tuple[str, ...]) -> Rights:
    reads = (*_all(root, t.RESPONSE, *_BRIDGE_TELLS), "homeassistant/#")
    writes = (*_orders(root), *_all(root, t.BRIDGE_ASK), "homeassistant/status")
    return Rights(reads, writes) + _asking(root, ("+",))


def _bridge(root: str, _name: str, _tasks: tuple[str, ...]) -> Rights:
    reads = (*_all(root, t.RESPONSE, t.BRIDGE_ASK, t.ROLLCALL, *_BRIDGE_TELLS), "homeassistant/status")
    own = Rights(reads, (*_all(root, t.EVENT, *_BRIDGE_TELLS), "homeassistant/#"))
    return _viewer(root, "bridge", ()) + _client(root, "bridge", ()) + own


def _neighbour(root: str, _name: str, _tasks: tuple[str, ...]) -> Rights:
    return Rights((f"{root}/#",), (f"{root}/#",))


_BY_ROLE = {
    "planner": _planner,
    "agent": _agent,
    "client": _client,
    "device": _device,
    "operator": _operator,
    "viewer": _viewer,
    "home-assistant": _home_assistant,
    "bridge": _bridge,
    "neighbour": _neighbour,
}


def _all(root: str, *paths: t.TopicPath) -> tuple[str, ...]:
    return tuple(path.all(root) for path in paths)


def _orders(root: str) -> tuple[str, ...]:
    return tuple(t.CONTROL.at(root, verb=verb) for verb in _VERBS)


def _asking(root: str, tasks: tuple[str, ...], *, answers: bool = False) -> Rights:
    asked = Rights()
    for task in tasks:
        common = (t.RESPONSE.all(root, task=task),) if answers else ()
        asked += Rights(common, (t.REQUEST.all(root, task=task), t.REQUEST_INPUT.all(root, task=task)))
    return asked


def _check_extra(root: str, topic_filter: str) -> None:
    levels = topic_filter.split("/")
    wrong = any(("+" in level and level != "+") or ("#" in level and level != "#") for level in levels)
    if not topic_filter.isprintable() or not topic_filter.strip() or wrong or "#" in levels[:-1]:
        raise BadInputError(f"{topic_filter!r} is no topic filter")
    if topic_filter.startswith("$") or _reaches(levels, root.split("/")):
        raise BadInputError(
            f"{topic_filter!r} reaches into {root}/ or the broker's own topics: rights there come by role"
        )


def _reaches(levels: list[str], root: list[str]) -> bool:
    for i, level in enumerate(root):
        if i >= len(levels):
            return False
        if levels[i] == "#":
            return True
        if levels[i] not in ("+", level):
            return False
    return True
