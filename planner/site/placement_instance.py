"""The instance of the placement problem of a running site. Run times are computed when they are asked for. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence, ValuesView
from functools import cached_property

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.run_times import NodeSet
from s2m3.schemas.definitions import ModelSpec, ModuleSpec
from s2m3.schemas.errors import NoCapacityError, S2M3Error
from s2m3.schemas.instance import Device, Instance, PlacedModule, PlacedStep, PlacedTask

__all__ = ["MemoryByNode", "SecondsByNode", "SiteInstances", "Units", "build_instance", "full_memory"]

#: node -> memory for modules, 10^6 bytes
MemoryByNode = Mapping[str, float]
#: name in the instance -> a task and the rank of one of its models
Units = Mapping[str, tuple[str, int]]
#: Speed at which pages of mapped weights are expected to come from a disk, 10^6 bytes a second: a good memory card's.
_DISK_MB_S = 100.0


class SecondsByNode(Mapping[str, float]):
    """Seconds per item of one module on each node that can load it, computed per node on first use.

    Args:
        cluster: The cluster state, which must not change.
        spec: The module.
        nodes: The nodes to use.
        now: Monotonic seconds.
        node_set: What stands for the nodes, so that all times are those of an earlier plan if nothing changed.
    """

    def __init__(
        self,
        cluster: ClusterState,
        spec: ModuleSpec,
        nodes: MemoryByNode,
        now: float,
        node_set: NodeSet | None = None,
    ) -> None:
        self.cluster, self._spec, self._nodes, self._now = cluster, spec, nodes, now
        self._row = cluster.run_times_of(spec)
        #: nodes whose time, or ability to load the module, changes with their reports
        self._special = cluster.concerned(spec.id)
        is_kept = node_set is not None and not self._special and self._row.whole and self._row.whole[0] is node_set
        self._all: Mapping[str, float] | None = self._row.whole[1] if is_kept and self._row.whole else None
        self._node_set = node_set

    def _at(self, node: str) -> float | None:
        if node not in self._nodes:
            return None
        if node in self._special:
            return self._computed(node)
        profile, known = self.cluster.profiles[node], self._row.get(node)
        if known is None or known[0] is not profile:
            known = self._row[node] = profile, self._computed(node)
        return known[1]

    def _computed(self, node: str) -> float | None:
        able = self.cluster.can_load(self._spec, node, self._now)
        return self.cluster.seconds(self._spec, node) if able else None

    def _every(self) -> Mapping[str, float]:
        if self._all is None:
            row = ((node, self._at(node)) for node in self._nodes)
            self._all = {node: seconds for node, seconds in row if seconds is not None}
            if self._node_set is not None and not self._special:
                self._row.whole = self._node_set, self._all
        return self._all

    def __getitem__(self, node: str) -> float:
        seconds = self._at(node)
        if seconds is None:
            raise KeyError(node)
        return seconds

    def __contains__(self, node: object) -> bool:
        return isinstance(node, str) and self._at(node) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._every())

    def __len__(self) -> int:
        return len(self._every())

    def __bool__(self) -> bool:
        return any(self._at(node) is not None for node in self._nodes)

    def values(self) -> ValuesView[float]:
        """Returns the seconds, in the order of the nodes."""
        return self._every().values()


class MappedSeconds(SecondsByNode):
    """The same of a module whose weights are mapped, on the nodes that can map them.

    Where a node has not run the module so, each run is expected to read from the disk what exceeds its memory.
    """

    def _at(self, node: str) -> float | None:
        seconds = super()._at(node)
        if seconds is None or self._spec.class_ not in self.cluster.profiles[node].mapped:
            return None
        lacks_mb = self.cluster.memory_of(self._spec) - self._nodes[node]
        report = self.cluster.holds(node, self._spec.id)
        is_measured = report is not None and report.mapped and report.ms > 0
        return seconds if is_measured or lacks_mb <= 0 else seconds + lacks_mb / _DISK_MB_S


def full_memory(cluster: ClusterState) -> MemoryByNode:
    """Returns the memory for modules of each usable node."""
    return {node: cluster.memory_for_modules(node) for node in cluster.usable()}


class SiteInstances:
    """The instances of one state of the site: devices and rows of run times are made once for all of them.

    Args:
        cluster: The cluster state, which must not change while the instances are used.
        now: Monotonic seconds.
        memory_mb_by_node: The nodes to use.
        mapped: The modules whose weights are mapped from the disk.
    """

    def __init__(
        self, cluster: ClusterState, now: float, memory_mb_by_node: MemoryByNode, mapped: Collection[str] = frozenset()
    ) -> None:
        self.cluster, self.now, self.memory_mb_by_node, self.mapped = cluster, now, memory_mb_by_node, mapped
        self._devices = tuple(_device(cluster, node, mb) for node, mb in memory_mb_by_node.items())
        self._rows: dict[str, SecondsByNode] = {}
        self._modules_of: dict[tuple[str, int], tuple[str, ...]] = {}
        cluster.run_times.keep(cluster.catalogue.modules.keys(), cluster.profiles.keys())
        self._node_set = cluster.run_times.node_set(memory_mb_by_node.keys(), cluster.profiles)

    @cached_property
    def current(self) -> Mapping[str, list[str]]:
        """The current assignment, module -> nodes."""
        placement: dict[str, list[str]] = {}
        for node in sorted(self.cluster.plans):
            if node in self.memory_mb_by_node:
                for spec in self.cluster.plans[node].modules:
                    placement.setdefault(spec.id, []).append(node)
        return placement

    def loadable(self) -> tuple[dict[str, list[int]], dict[str, dict[int, S2M3Error]]]:
        """Returns the ranks that some nodes can load, of each task that has one; and why not, of all others."""
        options: dict[str, list[int]] = {}
        missed: dict[str, dict[int, S2M3Error]] = {task: {} for task in self.cluster.tasks}
        for task in sorted(self.cluster.tasks):
            for rank in range(len(self.cluster.tasks[task].ranks)):
                try:
                    for module_id in self.model(task, rank).module_ids:
                        self.check_loadable(module_id)
                except S2M3Error as error:
                    missed[task][rank] = error
                else:
                    options.setdefault(task, []).append(rank)
        return options, missed

    def model(self, task: str, rank: int) -> ModelSpec:
        """Returns a task's model of a rank.

        Raises:
            S2M3Error: It is unknown or invalid.
        """
        model = self.cluster.ranks_of(task)[rank]
        if isinstance(model, S2M3Error):
            raise model
        return model

    def memory_mb(self, module_id: str) -> float:
        """Returns a module's memory, 10^6 bytes."""
        return self.cluster.memory_of(self.cluster.catalogue.modules[module_id], mapped=module_id in self.mapped)

    def size_mb(self, task: str, rank: int) -> float:
        """Returns the memory of a task's model of a rank, 10^6 bytes."""
        return sum(map(self.memory_mb, self.model(task, rank).module_ids))

    def able(self, module_id: str) -> Collection[str]:
        """Returns the nodes that can load a module."""
        try:
            return self._seconds(module_id).keys()
        except NoCapacityError:
            return ()

    def of(self, tasks: Sequence[str]) -> Instance:
        """Returns the instance (schemas/instance.py) of the best models of tasks; errors as of `of_units`."""
        return self.of_units({task: (task, 0) for task in tasks})

    def of_units(self, units: Units) -> Instance:
        """Returns the instance (schemas/instance.py) of some models.

        Raises:
            NoCapacityError: No node can load one of the modules.
            S2M3Error: A model is unknown or invalid.
        """
        cluster = self.cluster
        models = {unit: self.model(task, rank) for unit, (task, rank) in units.items()}
        users: dict[str, list[ModelSpec]] = defaultdict(list)
        for model in models.values():
            for module_id in model.module_ids:
                users[module_id].append(model)
        # built without validation: every value comes from a validated document, and a row would be computed for it
        return Instance.model_construct(
            devices=self._devices,
            modules=tuple(self._module(module_id, found) for module_id, found in users.items()),
            tasks=tuple(self._task(unit, task, models[unit]) for unit, (task, _) in units.items()),
            max_replicas=max((cluster.tasks[task].max_replicas for task, _ in units.values()), default=1),
        )

    def of_modules(self, modules: Collection[str]) -> Instance:
        """Returns the instance (schemas/instance.py) of modules alone, one copy each, without tasks.

        Raises:
            NoCapacityError: No node can load one of the modules.
        """
        placed = tuple(self._module(module_id, []) for module_id in modules)
        return Instance.model_construct(devices=self._devices, modules=placed, tasks=(), max_replicas=1)

    def modules_of(self, ranks: Mapping[str, int]) -> frozenset[str]:
        """Returns the modules of tasks' models of these ranks."""
        for task, rank in ranks.items() - self._modules_of.keys():
            self._modules_of[task, rank] = self.model(task, rank).module_ids
        return frozenset[str]().union(*map(self._modules_of.__getitem__, ranks.items()))

    def check_loadable(self, module_id: str) -> None:
        """Checks that some node can load a module.

        Raises:
            NoCapacityError: No node can.
        """
        self._seconds(module_id)

    def _seconds(self, module_id: str) -> SecondsByNode:
        if module_id in self._rows:
            return self._rows[module_id]
        cluster = self.cluster
        spec = cluster.catalogue.modules[module_id]
        if module_id in self.mapped:
            row: SecondsByNode = MappedSeconds(cluster, spec, self.memory_mb_by_node, self.now)
        else:
            row = SecondsByNode(cluster, spec, self.memory_mb_by_node, self.now, self._node_set)
        if not row:
            failed = cluster.failures.reason(module_id)
            nobody = (
                ""
                if cluster.has_source(spec)
                else ", which no node has (an agent on one machine that has it is enough)"
            )
            needs = f"the class {spec.class_} and the source {spec.source}{nobody}"
            why = f"; it failed with {failed.code}: {failed.detail}" if failed else f"; it needs {needs}"
            raise NoCapacityError(f"no node that is ready can load {module_id}{why}")
        self._rows[module_id] = row
        return row

    def _module(self, module_id: str, users: list[ModelSpec]) -> PlacedModule:
        spec = self.cluster.catalogue.modules[module_id]
        return PlacedModule.model_construct(
            id=module_id,
            memory_mb=self.memory_mb(module_id),
            input_kb=spec.input_kb,
            output_kb=max((model.sent_kb(spec) for model in users), default=0.0),
            seconds=self._seconds(module_id),
        )

    def _task(self, unit: str, task: str, model: ModelSpec) -> PlacedTask:
        return PlacedTask.model_construct(
            id=unit,
            rate=self.cluster.rates.rate(task, self.now),
            prefer=tuple(node for node in self.cluster.tasks[task].prefer if node in self.memory_mb_by_node),
            steps=tuple(
                PlacedStep.model_construct(id=name, module=step.module, after=tuple(step.after))
                for name, step in model.steps.items()
            ),
        )


def build_instance(cluster: ClusterState, tasks: Sequence[str], now: float) -> Instance:
    """Returns the instance of tasks on all usable nodes with their full memory; errors as of `of_units`."""
    with cluster.indexed():
        return SiteInstances(cluster, now, full_memory(cluster)).of(tasks)


def _device(cluster: ClusterState, node: str, memory_mb: float) -> Device:
    latency_ms, mbps = cluster.link(node)
    return Device.model_construct(
        id=node,
        memory_mb=memory_mb,
        latency_ms=latency_ms,
        mbps=mbps,
        prefer=cluster.weight(node),
    )
