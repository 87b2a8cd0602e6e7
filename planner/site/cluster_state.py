"""The planner's view of the site: desired tasks, present nodes, modules per node. Pure: documents in, answers out."""

from dataclasses import dataclass, field

from pydantic import BaseModel

from s2m3.broker.node_states import NodeStates
from s2m3.planner.site.compute_time import expected_s
from s2m3.planner.site.flapping import Flapping
from s2m3.planner.site.part_sources import can_fetch, fetch_price_s, has_part
from s2m3.planner.site.request_rates import Rates
from s2m3.schemas.definitions import Catalogue, ModelSpec, ModuleSpec, is_hub_id, with_definition
from s2m3.schemas.dtypes import Dtype, share_of
from s2m3.schemas.errors import BadDefinitionError, BadInputError, S2M3Error
from s2m3.schemas.messages import ErrorBody, ModuleReport, NodeProfile, Plan, Reported, TaskSpec
from s2m3.schemas.protocol import PROTOCOL, needs

__all__ = ["ClusterState"]

#: Exponential back-off: after the n-th failed load of a module on a node, no new attempt for 2^(n-1) times this.
_RETRY_LOAD_S = 10.0
#: Largest exponent of the back-off.
_RETRY_MAX = 6
#: A lost node may return soon (a restart, a broker restart): for this long, missing capacity is not reported as error.
_HOPE_S = 10.0
#: Nodes look for the checkpoint of a new task, and say in their profile that they hold it: they have this long.
_OFFER_S = 2.0


@dataclass(slots=True)
class _Failures:
    count: int = 0
    until: float = 0.0


@dataclass(slots=True)
class ClusterState:
    """Desired tasks, node profiles and node reports: everything that determines a placement."""

    #: all known definitions, from files and from tasks
    catalogue: Catalogue
    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    nodes: NodeStates = field(default_factory=NodeStates)
    profiles: dict[str, NodeProfile] = field(default_factory=dict)
    reported: dict[str, Reported] = field(default_factory=dict)
    #: node -> the plan that this planner or an earlier one published
    plans: dict[str, Plan] = field(default_factory=dict)
    #: tasks whose persistent session exists at the broker: only these may have a gateway
    sessions: set[str] = field(default_factory=set)
    rates: Rates = field(default_factory=Rates)
    hope_until: float = 0.0
    #: new task -> until when nodes may still say that they hold its checkpoint
    _offers_until: dict[str, float] = field(default_factory=dict)
    flapping: Flapping = field(default_factory=Flapping)
    #: tasks whose embedded definition is invalid
    refused: dict[str, S2M3Error] = field(default_factory=dict)
    _in_files: Catalogue = field(init=False)
    _own_models: dict[str, ModelSpec] = field(default_factory=dict)
    _failures: dict[tuple[str, str], _Failures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._in_files = self.catalogue

    def model_of(self, task: str) -> ModelSpec | None:
        """Returns the model of a task; None if its definition is unknown, or embedded in the task and invalid."""
        if self.tasks[task].definition is not None or self.tasks[task].unreadable:
            return self._own_models.get(task)
        return self.catalogue.models.get(self.tasks[task].model)

    def want(self, task: str, spec: TaskSpec | None) -> bool:
        """Sets a desired task, with its embedded definition if any; None removes it. Returns whether it changed."""
        if self.tasks.get(task) == spec:
            return False
        if spec is None:
            del self.tasks[task]
            self._offers_until.pop(task, None)
        else:
            self.tasks[task] = spec
        self._take_definitions()
        return True

    def _take_definitions(self) -> None:
        """Rebuilds the catalogue from the definitions in files and tasks; equal modules are merged."""
        self._own_models, self.refused, catalogue = {}, {}, self._in_files
        for task, spec in sorted(self.tasks.items()):
            if spec.unreadable:
                self.refused[task] = BadDefinitionError(f"the planner cannot read it: {spec.unreadable}")
            if spec.definition is not None:
                try:
                    catalogue, self._own_models[task] = with_definition(catalogue, spec.definition)
                except BadInputError as error:
                    self.refused[task] = error
        self.catalogue = catalogue

    def usable(self) -> list[str]:
        """Returns the nodes that may be given modules: ready, and with a profile of the current boot."""
        return sorted(
            node
            for node in self.nodes.ready
            if node in self.profiles and self.profiles[node].boot == self.nodes.boot(node)
        )

    def keepalives(self) -> dict[str, float]:
        """Returns the keepalive, seconds, of each present node that publishes its load as a heartbeat."""
        profiles = ((node, self.profiles.get(node)) for node in self.nodes.present)
        return {node: profile.keepalive_s for node, profile in profiles if profile is not None and profile.keepalive_s}

    def holds(self, node: str, module: str) -> ModuleReport | None:
        """Returns a present node's report of a module; None if it has none from the current boot."""
        reported = self.reported.get(node)
        boot = self.nodes.boot(node)
        if reported is None or node not in self.nodes.present or reported.boot != boot:
            return None
        if node not in self.profiles or self.profiles[node].boot != boot:
            return None
        return reported.modules.get(module)

    def ready_nodes(self, module: str) -> list[str]:
        """Returns the present nodes (ready or draining) that hold a ready copy."""
        found = []
        for node in sorted(self.nodes.present):
            report = self.holds(node, module)
            if report is not None and report.state == "ready":
                found.append(node)
        return found

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

    def memory_of(self, spec: ModuleSpec) -> float:
        """Returns a module's memory, in the unit of `memory_for_modules`.

        It is the largest measurement of any node, else the estimate. If nodes use different dtypes, the smallest
        estimate counts: an agent without enough memory refuses the load and the module is placed elsewhere, while too
        large an estimate would never be tried and corrected.
        """
        measured = [
            reported.modules[spec.id].memory_mb / self._share(node)
            for node, reported in self.reported.items()
            if spec.id in reported.modules and reported.modules[spec.id].state == "ready"
        ]
        if measured:
            return max(measured)
        dtypes: set[Dtype] = {self.profiles[node].dtype for node in self.usable()} or {"float32"}
        return min((spec.weights_mb(spec.dtype or dtype) + spec.cache_mb) / share_of(dtype) for dtype in dtypes)

    def _share(self, node: str) -> float:
        profile = self.profiles.get(node)
        return share_of(profile.dtype) if profile is not None else 1.0

    def seconds(self, spec: ModuleSpec, node: str) -> float:
        """Returns seconds per item on a node.

        This is the node's own measurement; else the median of other nodes' measurements, scaled by speed; else the
        operations divided by the node's speed (compute_time.py). To the last two comes what fetching the part costs
        a node that lacks it.
        """
        report = self.holds(node, spec.id)
        if report is not None and report.ms > 0:
            return report.ms / 1000
        elsewhere = [(self.profiles[other], ms / 1000) for other, ms in self._measured_ms(spec.id)]
        expected = expected_s(spec, self.profiles[node], elsewhere)
        if report is not None and report.state == "ready":
            return expected
        return expected + fetch_price_s(spec, node, self._present_profiles())

    def _measured_ms(self, module: str) -> list[tuple[str, float]]:
        """Returns (node, milliseconds per item) of each node that has run a module."""
        reports = ((node, self.holds(node, module)) for node in self.reported)
        return [(node, report.ms) for node, report in reports if report is not None and report.ms > 0]

    def understands(self, node: str, document: BaseModel) -> bool:
        """Returns whether a node's protocol number is high enough for everything in a document."""
        protocol = self.nodes.protocol(node)
        return protocol >= PROTOCOL or needs(document) <= protocol

    def can_load(self, spec: ModuleSpec, node: str, now: float) -> bool:
        """Returns whether a node knows the module's source and class, and no load back-off is in effect."""
        profile = self.profiles[node]
        if not self.understands(node, spec):
            return False
        if spec.class_ not in profile.classes or not self._can_have(spec, node):
            return False
        failures = self._failures.get((node, spec.id))
        return failures is None or failures.until <= now

    def _can_have(self, spec: ModuleSpec, node: str) -> bool:
        """Returns whether a module's files are on a node, or come from the hub or from another node."""
        profile, held = self.profiles[node], self.holds(node, spec.id)
        fetchable = is_hub_id(spec.source) and "hub" in profile.sources
        # one that is loading or ready stays: who sends the part may be away for a moment, or is not needed any more
        under_way = profile.parts is not None and held is not None and held.state in ("loading", "ready")
        return fetchable or has_part(spec, profile) or under_way or can_fetch(spec, node, self._present_profiles())

    def has_source(self, spec: ModuleSpec) -> bool:
        """Returns whether a present node has a module's source, or its part, on its disk."""
        return any(has_part(spec, profile) for profile in self._present_profiles().values())

    def _present_profiles(self) -> dict[str, NodeProfile]:
        return {node: self.profiles[node] for node in sorted(self.nodes.present) if node in self.profiles}

    def take_profile(self, node: str, profile: NodeProfile | None) -> bool:
        """Sets a node's profile (None removes it); returns whether it changed."""
        if self.profiles.get(node) == profile:
            return False
        if profile is None:
            self.profiles.pop(node, None)
        else:
            self.profiles[node] = profile
        return True

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
            self.note_failure(node, module, now)
        return failed

    def tasks_with_gateway(self) -> set[str]:
        """Returns the tasks whose gateway a plan names."""
        return {task for plan in self.plans.values() for task in plan.gateways}

    def epoch_followed(self) -> int:
        """Returns the (upper) median of the epochs that the present nodes follow; 0 if there are none."""
        epochs = sorted(self.reported[node].epoch for node in self.nodes.present if node in self.reported)
        return epochs[len(epochs) // 2] if epochs else 0

    def note_failure(self, node: str, module: str, now: float) -> None:
        """Notes a failed load: the back-off before the next attempt on that node grows."""
        failures = self._failures.setdefault((node, module), _Failures())
        failures.until = now + _RETRY_LOAD_S * 2 ** min(failures.count, _RETRY_MAX)
        failures.count += 1

    def forget_failures(self, node: str) -> None:
        """Ends all back-offs of a node that restarted: its new process may succeed."""
        for key in [key for key in self._failures if key[0] == node]:
            del self._failures[key]

    def next_retry(self, now: float) -> float | None:
        """Returns the earliest end of a load back-off, hold-down or grace period; None if none is in effect."""
        waits = [f.until for f in self._failures.values() if f.until > now]
        waits += [until for until in (self.hope_until, *self._offers_until.values()) if until > now]
        release = self.flapping.next_release(now)
        return min(waits if release is None else [*waits, release], default=None)

    def note_loss(self, node: str, now: float) -> None:
        """Notes that a node was lost: counts flapping, and starts the grace period."""
        self.flapping.left(node, now)
        self.hope_until = now + _HOPE_S

    def note_new(self, task: str, now: float) -> None:
        """Notes that a task is new or changed: nodes may take a moment to say that they hold its checkpoint."""
        definition = self.tasks[task].definition
        missing = {module.source for module in definition.modules} if definition is not None else set()
        if missing.difference(*(profile.sources for profile in self.profiles.values())):
            self._offers_until[task] = now + _OFFER_S

    def hopes(self, task: str, now: float) -> bool:
        """Returns whether capacity that a task lacks may come in a moment: until then, that is not an error."""
        return now < max(self.hope_until, self._offers_until.get(task, 0.0))

    def failure_of(self, module: str) -> ErrorBody | None:
        """Returns the reason of a module's failure on any node; None if it failed on none."""
        for reported in self.reported.values():
            report = reported.modules.get(module)
            if report is not None and report.state == "failed":
                return report.reason
        return None
