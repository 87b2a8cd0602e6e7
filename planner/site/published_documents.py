"""The plans and routes that the planner publishes: only changed documents, and all of them again after a reconnect."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from s2m3.planner.site.decision import Assignment, Decision
from s2m3.schemas import messages as m
from s2m3.schemas import topics

__all__ = ["Documents"]

#: (topic, payload); an empty payload clears the retained document.
Publish = Callable[[str, bytes], object]
Stamped = TypeVar("Stamped", m.Plan, m.RouteDoc)


@dataclass(slots=True)
class Documents:
    """The planner's retained plans and routes.

    Args:
        root: First levels of every topic.
        epoch: The epoch of this planner.
    """

    root: str
    epoch: int
    revision: int = 0
    plans_changed: int = 0
    #: None: a document of an earlier planner, to be replaced or cleared
    _plans: dict[str, m.Plan | None] = field(default_factory=dict)
    #: node -> the protocol number that its plan was written for
    _readers: dict[str, int] = field(default_factory=dict)
    _routes: dict[str, m.RouteDoc | None] = field(default_factory=dict)
    #: what the documents say, by task and by node, as it was decided: the same content needs no comparison
    _decided: dict[str, m.RouteDoc] = field(default_factory=dict)
    _assigned: dict[str, Assignment] = field(default_factory=dict)

    def inherit(self, plans: list[str], routes: list[str]) -> None:
        """Takes over documents of an earlier planner, by node and task: the next update replaces or clears each."""
        self._plans.update(dict.fromkeys(plans))
        self._routes.update(dict.fromkeys(routes))
        for node in plans:
            self._assigned.pop(node, None)
        for task in routes:
            self._decided.pop(task, None)

    def update(self, decision: Decision, publish: Publish) -> list[str]:
        """Publishes changed documents, routes before plans, and clears obsolete ones; returns nodes with a new plan."""
        self.revision += 1
        stamp = {"epoch": self.epoch, "revision": self.revision}
        for task, doc in decision.routes.items():
            if self._decided.get(task) is doc:
                continue
            self._decided[task] = doc
            if not _says_the_same(self._routes.get(task), doc):
                stamped = self._routes[task] = doc.model_copy(update=stamp)
                publish(topics.ROUTE.at(self.root, task=task), stamped.encode())
        for task in [task for task in self._routes if task not in decision.routes]:
            del self._routes[task]
            self._decided.pop(task, None)
            publish(topics.ROUTE.at(self.root, task=task), b"")
        changed = []
        for node, assignment in decision.assignments.items():
            if self._assigned.get(node) == assignment:
                continue
            self._assigned[node] = assignment
            modules, gateways = list(assignment.modules), list(assignment.gateways)
            plan = m.Plan(modules=modules, gateways=gateways, deputies=dict(assignment.deputies), **stamp)
            is_read = self._readers.get(node) == assignment.protocol  # else the node runs another release now
            known = self._plans.get(node)
            if not is_read or known is None or not _says_the_same(_by_id(known), _by_id(plan)):
                changed.append(node)
                self._plans[node], self._readers[node] = plan, assignment.protocol
                publish(topics.PLAN.at(self.root, node=node), plan.encode(assignment.protocol))
        for node in [node for node in self._plans if node not in decision.assignments]:
            changed.append(node)
            del self._plans[node]
            self._readers.pop(node, None)
            self._assigned.pop(node, None)
            publish(topics.PLAN.at(self.root, node=node), b"")
        self.plans_changed += len(changed)
        return changed

    def repeat(self, publish: Publish) -> None:
        """Publishes all documents again, in case the broker lost its retained messages."""
        for task, doc in self._routes.items():
            publish(topics.ROUTE.at(self.root, task=task), doc.encode() if doc else b"")
        for node, plan in self.plans.items():
            publish(topics.PLAN.at(self.root, node=node), plan.encode(self._readers[node]))

    def plan(self, node: str) -> m.Plan | None:
        """Returns a node's plan as published; None if it has none."""
        return self._plans.get(node)

    @property
    def tasks(self) -> set[str]:
        """The tasks that have a route, of ours or of an earlier planner."""
        return set(self._routes)

    @property
    def plans(self) -> dict[str, m.Plan]:
        """The plans as published, node -> plan."""
        return {node: plan for node, plan in self._plans.items() if plan is not None}


def _says_the_same(known: Stamped | None, new: Stamped) -> bool:
    """Returns whether two documents differ in epoch and revision alone."""
    return known is not None and known.model_copy(update={"epoch": new.epoch, "revision": new.revision}) == new


def _by_id(plan: m.Plan) -> m.Plan:
    """Returns a plan in one order of its modules: that of loading alone is no reason to publish a plan again.

    It changes whenever a second copy becomes the first, and the node has begun to load in the order that it was given.
    """
    return plan.model_copy(update={"modules": sorted(plan.modules, key=lambda spec: spec.id)})
