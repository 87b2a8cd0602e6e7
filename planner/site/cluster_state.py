"""The planner's view of the site: desired tasks, present nodes, modules per node. Pure: documents in, answers out."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pydantic import BaseModel

from s2m3.broker.node_states import NodeStates
from s2m3.planner.site.compute_time import expected_s
from s2m3.planner.site.flapping import Flapping
from s2m3.planner.site.load_failures import LoadFailures
from s2m3.planner.site.part_sources import fetch_price_s, has_part, is_served_of_export
from s2m3.planner.site.report_content import content_of
from s2m3.planner.site.request_rates import Rates
from s2m3.planner.site.run_times import Row, RunTimes
from s2m3.planner.site.site_index import SiteIndex
from s2m3.planner.site.steadiness import Steadiness
from s2m3.planner.site.task_models import TaskModels
from s2m3.schemas.definitions import Catalogue, ModelSpec, ModuleSpec, is_hub_id
from s2m3.schemas.dtypes import share_of
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.messages import ModuleReport, NodeProfile, Plan, Reported, TaskSpec
from s2m3.schemas.protocol import PROTOCOL, needs
from s2m3.schemas.sleep import NodeSettings

__all__ = ["ClusterState"]

#: A lost node may return soon (a restart, a broker restart): for this long, missing capacity is not reported as error.
_HOPE_S = 10.0
#: Nodes look for the checkpoint of a new task, and say in their profile that they hold it: they have this long.
_OFFER_S = 2.0


@dataclass(slots=True)
class ClusterState:
    """Desired tasks, node profiles and node reports: everything that determines a placement."""

    #: the definitions in files
    in_files: Catalogue
    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    nodes: NodeStates = field(default_factory=NodeStates)
    profiles: dict[str, NodeProfile] = field(default_factory=dict)
    reported: dict[str, Reported] = field(default_factory=dict)
    #: node -> the plan that this planner or an earlier one published
    plans: dict[str, Plan] = field(default_factory=dict)
    #: node -> what the operator says of it
    settings: dict[str, NodeSettings] = field(default_factory=dict)
    #: tasks whose persistent session exists at the broker: only these may have a gateway
    sessions: set[str] = field(default_factory=set)
    rates: Rates = field(default_factory=Rates)
    hope_until: float = 0.0
    #: new task -> until when nodes may still say that they hold its checkpoint
    _offers_until: dict[str, float] = field(default_factory=dict)
    flapping: Flapping = field(default_factory=Flapping)
    failures: LoadFailures = field(default_factory=LoadFailures)
    steadiness: Steadiness = field(default_factory=lambda: Steadiness(0.0))
    #: empty until the definitions of these tasks are first needed; shared with the snapshots of the same tasks
    _known: list[TaskModels] = field(default_factory=list)
    run_times: RunTimes = field(default_factory=RunTimes)  # shared with all snapshots; one plan at a time uses it
    _index: SiteIndex | None = None

    @property
    def catalogue(self) -> Catalogue:
        """All known definitions, from files and from tasks."""
        return self._task_models().catalogue

    def snapshot(self) -> "ClusterState":
        """Returns a copy for a plan that is made in another thread. Documents are shared: they never change."""
        return replace(
            self,
            tasks=dict(self.tasks),
            nodes=self.nodes.copy(),
            profiles=dict(self.profiles),
            reported=dict(self.reported),
            plans=dict(self.plans),
            settings=dict(self.settings),
            sessions=set(self.sessions),
            rates=self.rates.copy(),
            flapping=self.flapping.copy(),
            steadiness=self.steadiness.copy(),
            _offers_until=dict(self._offers_until),
            failures=self.failures.copy(),
            _index=None,  # documents of the copy may change
        )

    @contextmanager
    def indexed(self) -> Iterator[None]:
        """Keeps what answers derive from the documents of all nodes, as long as the context lasts.

        No document may change meanwhile.
        """
        outer = self._index
        self._index = outer or self._site()
        try:
            yield
        finally:
            self._index = outer

    def _site(self) -> SiteIndex:
        return self._index or SiteIndex(self.nodes, self.profiles, self.reported)

    def ranks_of(self, task: str) -> tuple[ModelSpec | S2M3Error, ...]:
        """Returns a task's models, the best first; in the place of one that is unknown or invalid, the reason."""
        return self._task_models().ranks(task, self.tasks[task])

    def model_of(self, task: str, rank: int = 0) -> ModelSpec | None:
        """Returns the model of a task at a rank; None if it is unknown, or embedded in the task and invalid."""
        model = self.ranks_of(task)[rank]
        return model if isinstance(model, ModelSpec) else None

    def modules_of(self, task: str) -> frozenset[str]:
        """Returns the modules of all models of a task."""
        models = [model for model in self.ranks_of(task) if isinstance(model, ModelSpec)]
        return frozenset(module for model in models for module in model.module_ids)

    def users(self) -> Mapping[str, Collection[str]]:
        """Returns the tasks that use each module, with any of their models."""
        return self._task_models().users

    def is_ready(self, model: ModelSpec) -> bool:
        """Returns whether present nodes hold a ready copy of each module of a model."""
        return all(self.ready_nodes(module) for module in model.module_ids)

    def note_steadiness(self, now: float) -> None:
        """Notes which models of tasks with stand-ins are complete now."""
        with self.indexed():
            models = {task: self.ranks_of(task) for task, spec in self.tasks.items() if spec.stand_ins}
            complete = {
                task: [isinstance(model, ModelSpec) and self.is_ready(model) for model in ranks]
                for task, ranks in models.items()
            }
        self.steadiness.note(complete, now)

    def want(self, task: str, spec: TaskSpec | None) -> bool:
        """Sets a desired task, with its embedded definition if any; None removes it. Returns whether it changed."""
        if self.tasks.get(task) == spec:
            return False
        if spec is None:
            del self.tasks[task]
            self._offers_until.pop(task, None)
        else:
            self.tasks[task] = spec
        self._known = []
        return True

    def _task_models(self) -> TaskModels:
        if not self._known:
            self._known.append(TaskModels(self.in_files, self.tasks))
        return self._known[0]

    def usable(self) -> list[str]:
        """Returns the nodes that may be given modules: ready, and with a profile of the current boot."""
        return self._site().usable

    def link(self, node: str) -> tuple[float, float]:
        """Returns the latency, milliseconds, and Mbit/s of a node's link, which the agents of one host share."""
        profile = self.profiles[node]
        own = profile.latency_ms, profile.mbps
        return self._site().links.get(profile.host, own) if profile.host else own

    def weight(self, node: str) -> float:
        """Returns a node's weight in placements, as the operator set it."""
        settings = self.settings.get(node)
        return 1.0 if settings is None else settings.prefer

    def sleeping(self) -> list[str]:
        """Returns the nodes that left in order and can be woken."""
        known = self.profiles.keys() & self.settings.keys()
        return sorted(node for node in known if self.settings[node].wake and self.nodes.has_left(node))

    def keepalives(self) -> dict[str, float]:
        """Returns the keepalive, seconds, of each present node that publishes its load as a heartbeat."""
        profiles = ((node, self.profiles.get(node)) for node in self.nodes.present)
        return {node: profile.keepalive_s for node, profile in profiles if profile is not None and profile.keepalive_s}

    def holds(self, node: str, module: str) -> ModuleReport | None:
        """Returns a present node's report of a module; None if it has none from the current boot."""
        return self._site().held.get(module, {}).get(node)

    def ready_nodes(self, module: str) -> list[str]:
        """Returns the present nodes (ready or draining) that hold a ready copy."""
        reports = self._site().held.get(module, {})
        return [node for node, report in reports.items() if report.state == "ready"]

    def memory_for_modules(self, node: str) -> float:
        """Returns a node's budget minus its runtime's memory, 10^6 bytes, scaled to float32 weights.

        The scaling makes one size per module valid for all nodes: a node with 16-bit weights counts twice its memory.
        """
        profile = self.profiles[node]
        reported = self.reported.get(node)
        runtime = reported.runtime_mb if reported and reported.boot == profile.boot else 0.0
        return max(0.0, profile.memory_mb - (runtime or profile.runtime_mb)) / share_of(profile.dtype)

    def pressure(self, node: str) -> float:
        """Returns the memory that a node gives up under memory pressure, in the unit of `memory_for_modules`."""
        profile, reported = self.profiles[node], self.reported.get(node)
        return reported.pressure_mb / share_of(profile.dtype) if reported and reported.boot == profile.boot else 0.0

    def memory_of(self, spec: ModuleSpec, *, mapped: bool = False) -> float:
        """Returns a module's memory, of one with `mapped` weights if so, in the unit of `memory_for_modules`.

        It is the largest measurement of any node, else the estimate. If nodes use different dtypes, the smallest
        estimate counts: an agent without enough memory refuses the load and the module is placed elsewhere, while too
        large an estimate would never be tried and corrected.
        """
        site = self._site()
        if (measured := (site.mapped_mb if mapped else site.measured_mb).get(spec.id)) is not None:
            return measured
        weights_mb = spec.mapped_mb if mapped else spec.weights_mb
        return min((weights_mb(spec.dtype or dtype) + spec.cache_mb) / share_of(dtype) for dtype in site.dtypes)

    def seconds(self, spec: ModuleSpec, node: str) -> float:
        """Returns seconds per item on a node.

        This is the node's own measurement; else the median of other nodes' measurements, scaled by speed; else the
        operations divided by the node's speed (compute_time.py). To the last two comes what fetching the part costs
        a node that lacks it.
        """
        site, profile = self._site(), self.profiles[node]
        report = site.held.get(spec.id, {}).get(node)
        if report is not None and report.ms > 0:
            return report.ms / 1000
        expected = expected_s(spec, profile, site.pace(spec))
        if report is not None and report.state == "ready":
            return expected
        return expected + fetch_price_s(spec, profile, site.sender(spec, node))

    def run_times_of(self, spec: ModuleSpec) -> Row:
        """Returns the times of a module that are known from earlier plans, of nodes that it does not concern."""
        site = self._site()
        return self.run_times.row(spec, site.pace(spec), site.senders(spec))

    def concerned(self, module: str) -> frozenset[str]:
        """Returns the nodes that report a module, or have failed to load it."""
        return self.failures.of(module).union(self._site().held.get(module, ()))

    def understands(self, node: str, document: BaseModel) -> bool:
        """Returns whether a node's protocol number is high enough for everything in a document."""
        protocol = self.nodes.protocol(node)
        return protocol >= PROTOCOL or needs(document) <= protocol

    def can_load(self, spec: ModuleSpec, node: str, now: float) -> bool:
        """Returns whether a node knows the module's source and class, and no load back-off is in effect."""
        profile = self.profiles[node]
        if not self.understands(node, spec):
            return False
        known = spec.class_ in profile.classes or spec.class_ in profile.exported
        if not known or not self._can_have(spec, node):
            return False
        return self.failures.may_load(node, spec.id, now)

    def _can_have(self, spec: ModuleSpec, node: str) -> bool:
        """Returns whether a module's files are on a node, or come from the hub or from another node."""
        profile = self.profiles[node]
        from_hub = is_hub_id(spec.source) and "hub" in profile.sources and not is_served_of_export(spec, profile)
        if from_hub or has_part(spec, profile):
            return True
        if profile.parts is None:
            return False
        site = self._site()
        held = site.held.get(spec.id, {}).get(node)
        # one that is loading or ready stays: who sends the part may be away for a moment, or is not needed any more
        under_way = held is not None and held.state in ("loading", "ready")
        return under_way or site.sender(spec, node) is not None

    def has_source(self, spec: ModuleSpec) -> bool:
        """Returns whether a present node has a module's source, or its part, on its disk."""
        return any(has_part(spec, self.profiles[node]) for node in self.nodes.present if node in self.profiles)

    def take_profile(self, node: str, profile: NodeProfile | None) -> bool:
        """Sets a node's profile (None removes it); returns whether it changed."""
        if self.profiles.get(node) == profile:
            return False
        if profile is None:
            self.profiles.pop(node, None)
        else:
            self.profiles[node] = profile
        return True

    def set_settings(self, node: str, settings: NodeSettings | None) -> bool:
        """Sets what the operator says of a node (None: nothing); returns whether it changed."""
        if self.settings.get(node) == settings:
            return False
        if settings is None:
            del self.settings[node]
        else:
            self.settings[node] = settings
        return True

    def matters(self, node: str, reported: Reported | None) -> bool:
        """Returns whether a node's new report may change a plan or a route.

        Progress, free memory, and times and sizes that are the same to two digits change neither.
        """
        before = self.reported.get(node)
        return (before and content_of(before)) != (reported and content_of(reported))

    def take_report(self, node: str, reported: Reported | None, now: float) -> list[str]:
        """Sets a node's report (None removes it) and returns the modules that failed since its last report."""
        before = self.reported.get(node)
        if reported is None:
            self.reported.pop(node, None)
            return []
        self.reported[node] = reported
        same = before.modules if before is not None and before.boot == reported.boot else {}
        failed = [
            module
            for module, report in reported.modules.items()
            if report.state == "failed" and (module not in same or same[module].state != "failed")
        ]
        for module in failed:
            self.failures.note(node, module, now, reported.modules[module].reason)
        return failed

    def tasks_with_gateway(self) -> set[str]:
        """Returns the tasks whose gateway a plan names."""
        return {task for plan in self.plans.values() for task in plan.gateways}

    def epoch_followed(self) -> int:
        """Returns the (upper) median of the epochs that the present nodes follow; 0 if there are none."""
        epochs = sorted(self.reported[node].epoch for node in self.nodes.present if node in self.reported)
        return epochs[len(epochs) // 2] if epochs else 0

    def next_retry(self, now: float) -> float | None:
        """Returns the earliest end of a load back-off, hold-down or grace period; None if none is in effect."""
        waits = self.failures.ends(now)
        waits += [until for until in (self.hope_until, *self._offers_until.values()) if until > now]
        later = (self.flapping.next_release(now), self.steadiness.next_steady(now))
        return min([*waits, *(time for time in later if time is not None)], default=None)

    def note_loss(self, node: str, now: float) -> None:
        """Notes that a node was lost: counts flapping, and starts the grace period."""
        self.flapping.left(node, now)
        self.hope_until = now + _HOPE_S

    def note_sleep(self, node: str, now: float) -> None:
        """Notes that a node's machine went to sleep: nobody hopes for its return, and it did not flap."""
        self.flapping.left(node, now, asleep=True)

    def note_new(self, task: str, now: float) -> None:
        """Notes that a task is new or changed: nodes may take a moment to say that they hold its checkpoint."""
        if self.tasks[task].sources.difference(*(profile.sources for profile in self.profiles.values())):
            self._offers_until[task] = now + _OFFER_S

    def hopes(self, task: str, now: float) -> bool:
        """Returns whether capacity that a task lacks may come in a moment: until then, that is not an error."""
        return now < max(self.hope_until, self._offers_until.get(task, 0.0))
