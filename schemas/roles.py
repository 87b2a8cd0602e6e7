"""The rights of each role as topic filters: the source of every access list, independent of a broker's syntax."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from s2m3.schemas import topics as t
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import check_id

__all__ = ["ROLES", "Rights", "Role", "check_login_name", "rights_of"]

Role = Literal["planner", "agent", "client", "device", "operator", "viewer", "home-assistant", "bridge", "neighbour"]
ROLES: tuple[Role, ...] = get_args(Role)
#: Names of agents' and the bridge's inboxes (`client/<name>/in`), which no other login may have.
_RESERVED = re.compile(r"(node|probe)-.*|bridge")
_CLEAR_HISTORY = "clear-history"
_REQUESTS: tuple[t.TopicPath, ...] = (t.REQUEST, t.REQUEST_INPUT, t.REQUEST_TRANSACTION)
_PUBLIC: tuple[t.TopicPath, ...] = (
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
_BRIDGE_PUBLISHES: tuple[t.TopicPath, ...] = (
    t.BRIDGE_STATE,
    t.BRIDGE_BINDING,
    t.BRIDGE_NODE,
    t.BRIDGE_PLANNER,
    t.BRIDGE_TASK,
    t.BRIDGE_ANSWER,
    t.BRIDGE_ANSWERED,
    t.BRIDGE_PICTURE,
)
#: What the bridge publishes of its history under the name of a task: private, so granted task by task.
_HISTORY_OF_TASK: tuple[t.TopicPath, ...] = (t.HISTORY_NEW, t.HISTORY_KEPT, t.HISTORY_PICTURE)


@dataclass(frozen=True, slots=True)
class Rights:
    """Topic filters that a login may read (subscribe to) and write (publish on)."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __add__(self, other: "Rights") -> "Rights":
        return Rights(self.reads + other.reads, self.writes + other.writes)


def check_login_name(role: Role, name: str) -> str:
    """Returns a valid login name unchanged.

    Raises:
        BadInputError: The name is no id, or is reserved for the inbox of an agent or the bridge.
    """
    check_id(name, "name")
    if _RESERVED.fullmatch(name) and role != "bridge":
        raise BadInputError(f"the name {name!r} is kept for an agent's or the bridge's own inbox")
    return name


def rights_of(root: str, role: Role, name: str, *, tasks: tuple[str, ...] = (), extra: Rights | None = None) -> Rights:
    """Returns a login's rights.

    Args:
        root: First levels of every topic of the site.
        role: The login's role.
        name: The login's name, which is also the name of its node or inbox.
        tasks: Tasks that the login may send requests to; `+` is all tasks. For a device or client, naming tasks also
            grants their `response/<task>` (default: all tasks, with answers in the inbox only). For a viewer, the
            default is none.
        extra: Rights on topics outside the root, for bindings and home automation.

    Raises:
        BadInputError: `extra` contains topics of the root or the broker, or an invalid filter; or a task's name is no
            id.
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
    reads = [p for p in _PUBLIC if p != t.EVENT]
    writes = (t.PLANNER_STATE, t.PLANNER_HEALTH, t.TASK, t.PLAN, t.ROUTE, t.NODE_STATE, t.EVENT, t.CONTROL_RESPONSE)
    # of a node whose heartbeat stopped, the planner publishes that it is lost; it opens each task's session with the
    # subscriptions that its gateway will use
    more = (t.ROLLCALL, t.NODE_SETTINGS, t.DEMAND)
    control = (*_control_topics(root), t.CONTROL.at(root, verb=t.PREVIEW))
    reads_all = (*_all(root, *reads, *more), *control, *_all(root, *_REQUESTS))
    answers = (t.CLIENT_IN, t.RESPONSE)  # the planner answers plain requests to unknown tasks
    # and clears plain requests that somebody retains
    return Rights(reads_all, _all(root, *writes, t.ROLLCALL, t.NODE_SETTINGS, t.WAKE, *answers, *_REQUESTS))


def _agent(root: str, name: str, _tasks: tuple[str, ...]) -> Rights:
    reads = (
        t.PLAN.at(root, node=name),
        t.MODULE_IN.all(root, node=name),
        *(t.CLIENT_IN.at(root, client=f"{kind}-{name}") for kind in ("node", "probe")),
        *_all(root, t.PLANNER_STATE, t.TASK, t.ROUTE, t.NODE_STATE, t.NODE_LOAD, t.ROLLCALL),
        *_all(root, *_REQUESTS, t.CLAIMS, t.RESPONSE),  # this node may become the gateway or a deputy of any task
        *(t.CONTROL.at(root, verb=verb) for verb in ("drain", "undrain", "profile", "sleep")),
        *(t.NODE_SETTINGS.at(root, node=name), t.WAKE.at(root, helper=name)),
        *(t.PART_WANTED.all(root), t.PART_REQUEST.all(root, holder=name)),
        *(path.all(root, asker=name) for path in (t.PART_OFFER, t.PART_PIECE)),
    )
    own = (t.NODE_STATE, t.NODE_PROFILE, t.NODE_REPORTED, t.NODE_LOAD)
    answers = (t.CLIENT_IN, t.RESPONSE, t.RESPONSE_VALUE)
    # a gateway puts requests that take long back into the task's session: docs/decisions
    shared: tuple[t.TopicPath, ...] = (t.EVENT, t.DEMAND, t.CLAIMS, t.ROLLCALL, t.MODULE_IN, *answers, *_REQUESTS)
    writes = (*(p.at(root, node=name) for p in own), *_all(root, *shared))
    # the sender's name is in the topic: nobody can send pieces in another node's name
    parts = (path.all(root, asker=name) for path in (t.PART_WANTED, t.PART_REQUEST))
    sent = (path.all(root, holder=name) for path in (t.PART_OFFER, t.PART_PIECE))
    return Rights(reads, (*writes, *parts, *sent))


def _device(root: str, name: str, tasks: tuple[str, ...]) -> Rights:
    inbox = Rights((t.CLIENT_IN.at(root, client=name),))
    return inbox + _request_rights(root, tasks or ("+",), answers=bool(tasks))


def _client(root: str, name: str, tasks: tuple[str, ...]) -> Rights:
    own = t.CLIENT_IN.at(root, client=name)  # also written: a Client first checks that its own message comes back
    demands = tuple(t.DEMAND.all(root, task=task) for task in tasks or ("+",))
    reads = _all(root, t.PLANNER_STATE, t.ROUTE, t.NODE_STATE, t.NODE_LOAD)
    # whoever sends to nodes directly has to ask for a route or a state that its broker does not have
    direct = Rights(reads, (*_all(root, t.MODULE_IN, t.ROLLCALL), own, *demands))
    return _device(root, name, tasks) + direct


def _viewer(root: str, _name: str, tasks: tuple[str, ...]) -> Rights:
    bridge = (t.BIND, t.BRIDGE_STATE, t.BRIDGE_BINDING, t.BRIDGE_TASK)  # no pictures, no answers: private
    own = Rights(_all(root, *_PUBLIC, *bridge, t.HISTORY_STATE), _all(root, t.ROLLCALL))
    return own + _history_rights(root, tasks) + _request_rights(root, tasks, answers=True)


def _operator(root: str, name: str, _tasks: tuple[str, ...]) -> Rights:
    # settings are the operator's own; the others are cleared for a removed node
    forget = (t.NODE_STATE, t.NODE_PROFILE, t.NODE_REPORTED, t.NODE_SETTINGS)
    own_verbs = (t.CONTROL.at(root, verb=verb) for verb in (t.PREVIEW, _CLEAR_HISTORY))
    control = (*_all(root, t.TASK, t.BIND, *forget), *_control_topics(root), *own_verbs)
    reads = _all(root, t.CONTROL_RESPONSE, t.NODE_SETTINGS, t.RESPONSE, t.RESPONSE_VALUE, *_BRIDGE_PUBLISHES)
    own = _history_rights(root, ("+",)) + Rights(reads, control)
    return _viewer(root, name, ()) + _client(root, name, ()) + own


def _home_assistant(root: str, _name: str, _tasks: tuple[str, ...]) -> Rights:
    reads = (*_all(root, t.RESPONSE, t.RESPONSE_VALUE, *_BRIDGE_PUBLISHES), "homeassistant/#")
    writes = (*_control_topics(root), *_all(root, t.BRIDGE_ASK), "homeassistant/status")
    return Rights(reads, writes) + _request_rights(root, ("+",))


def _bridge(root: str, _name: str, _tasks: tuple[str, ...]) -> Rights:
    orders = (*_all(root, t.HISTORY_WANTED), t.CONTROL.at(root, verb=_CLEAR_HISTORY))
    plain = (t.RESPONSE, *_REQUESTS)  # the pictures of plain requests belong to their answers
    reads = (*_all(root, *plain, t.BRIDGE_ASK, t.ROLLCALL, *_BRIDGE_PUBLISHES), *orders, "homeassistant/status")
    history = (
        *_all(root, t.HISTORY_STATE, *_HISTORY_OF_TASK, t.HISTORY_DONE),
        t.CONTROL_RESPONSE.at(root, verb=_CLEAR_HISTORY),
    )
    own = Rights(reads, (*_all(root, t.EVENT, *_BRIDGE_PUBLISHES), *history, "homeassistant/#"))
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


def _control_topics(root: str) -> tuple[str, ...]:
    return tuple(t.CONTROL.at(root, verb=verb) for verb in t.VERBS)


def _history_rights(root: str, tasks: tuple[str, ...]) -> Rights:
    """Returns the right to ask the bridge for what it keeps of some tasks; none without tasks."""
    if not tasks:
        return Rights()
    reads = (path.all(root, task=task) for task in tasks for path in _HISTORY_OF_TASK)
    return Rights((*reads, *_all(root, t.HISTORY_DONE)), _all(root, t.HISTORY_WANTED))


def _request_rights(root: str, tasks: tuple[str, ...], *, answers: bool = False) -> Rights:
    rights = Rights()
    for task in tasks:
        common = tuple(path.all(root, task=task) for path in (t.RESPONSE, t.RESPONSE_VALUE)) if answers else ()
        rights += Rights(common, tuple(path.all(root, task=task) for path in _REQUESTS))
    return rights


def _check_extra(root: str, topic_filter: str) -> None:
    levels = topic_filter.split("/")
    wrong = any(("+" in level and level != "+") or ("#" in level and level != "#") for level in levels)
    if not topic_filter.isprintable() or not topic_filter.strip() or wrong or "#" in levels[:-1]:
        raise BadInputError(f"{topic_filter!r} is no topic filter")
    if topic_filter.startswith("$") or _overlaps(levels, root.split("/")):
        raise BadInputError(
            f"{topic_filter!r} reaches into {root}/ or the broker's own topics: rights there come by role"
        )


def _overlaps(levels: list[str], root: list[str]) -> bool:
    for i, level in enumerate(root):
        if i >= len(levels):
            return False
        if levels[i] == "#":
            return True
        if levels[i] not in ("+", level):
            return False
    return True
