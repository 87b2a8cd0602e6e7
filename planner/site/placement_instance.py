"""The instance of the placement problem of a running site. Run times are computed when they are asked for. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, ValuesView

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.definitions import ModelSpec, ModuleSpec
from s2m3.schemas.errors import NoCapacityError, UnknownTaskError
from s2m3.schemas.instance import Device, Instance, PlacedModule, PlacedStep, PlacedTask

__all__ = ["MemoryByNode", "SecondsByNode", "SiteInstances", "build_instance", "full_memory"]

#: node -> memory for modules, 10^6 bytes
MemoryByNode = Mapping[str, float]


class SecondsByNode(Mapping[str, float]):
    """Seconds per item of one module on each node that can load it, computed per node on first use.

    Args:
        cluster: The cluster state, which must not change.
        spec: The module.
        nodes: The nodes to use.
        now: Monotonic seconds.
    """

    def __init__(self, cluster: ClusterState, spec: ModuleSpec, nodes: MemoryByNode, now: float) -> None:
        self._cluster, self._spec, self._nodes, self._now = cluster, spec, nodes, now
        self._row = cluster.run_times_of(spec)
        #: what these nodes take, or whether they can load it, changes with their reports
        self._special = cluster.concerned(spec.id)
        self._all: dict[str, float] | None = None

    def _at(self, node: str) -> float | None:
        if node not in self._nodes:
            return None
        if node in self._special:
            return self._computed(node)
        profile, known = self._cluster.profiles[node], self._row.get(node)
        if known is None or known[0] is not profile:
            known = self._row[node] = profile, self._computed(node)
        return known[1]

    def _computed(self, node: str) -> float | None:
        able = self._cluster.can_load(self._spec, node, self._now)
        return self._cluster.seconds(self._spec, node) if able else None

    def _every(self) -> dict[str, float]:
        if self._all is None:
            row = ((node, self._at(node)) for node in self._nodes)
            self._all = {node: seconds for node, seconds in row if seconds is not None}
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


def full_memory(cluster: ClusterState) -> MemoryByNode:
    """Returns the memory for modules of each usable node."""
    return {node: cluster.memory_for_modules(node) for node in cluster.usable()}


class SiteInstances:
    """The instances of one state of the site: devices and rows of run times are made once for all of them.

    Args:
        cluster: The cluster state, which must not change while the instances are used.
        now: Monotonic seconds.
        memory_mb_by_node: The nodes to use.
    """

    def __init__(self, cluster: ClusterState, now: float, memory_mb_by_node: MemoryByNode) -> None:
        self._cluster, self._now, self._nodes = cluster, now, memory_mb_by_node
        self._devices = tuple(_device(cluster, node, mb) for node, mb in memory_mb_by_node.items())
        self._rows: dict[str, SecondsByNode] = {}
        cluster.run_times.keep(cluster.catalogue.modules.keys(), cluster.profiles.keys())

    def check(self, task: str) -> None:
        """Raises the error of a task that could not even be served alone.

        Raises:
            NoCapacityError: No node can load one of the modules.
            UnknownTaskError: The task's model is unknown.
            S2M3Error: The task's embedded definition is invalid.
        """
        for module_id in _model(self._cluster, task).module_ids:
            self._seconds(module_id)

    def of(self, tasks: Sequence[str]) -> Instance:
        """Returns the instance (schemas/instance.py) of tasks; errors as of `check`."""
        cluster = self._cluster
        models = {task: _model(cluster, task) for task in tasks}
        users: dict[str, list[ModelSpec]] = defaultdict(list)
        for model in models.values():
            for module_id in model.module_ids:
                users[module_id].append(model)
        # built without validation: every value comes from a validated document, and a row would be computed for it
        return Instance.model_construct(
            devices=self._devices,
            modules=tuple(self._module(module_id, found) for module_id, found in users.items()),
            tasks=tuple(self._task(task, model) for task, model in models.items()),
            max_replicas=max((cluster.tasks[task].max_replicas for task in tasks), default=1),
        )

    def _seconds(self, module_id: str) -> SecondsByNode:
        if module_id in self._rows:
            return self._rows[module_id]
        cluster = self._cluster
        spec = cluster.catalogue.modules[module_id]
        row = SecondsByNode(cluster, spec, self._nodes, self._now)
        if not row:
            failed = cluster.failure_of(module_id)
            nobody = "" if cluster.has_source(spec) else ", which no node has: an agent where it is sends it to others"
            needs = f"the class {spec.class_} and the source {spec.source}{nobody}"
            why = f"; it failed with {failed.code}: {failed.detail}" if failed else f"; it needs {needs}"
            raise NoCapacityError(f"no node that is ready can load {module_id}{why}")
        self._rows[module_id] = row
        return row

    def _module(self, module_id: str, users: list[ModelSpec]) -> PlacedModule:
        spec = self._cluster.catalogue.modules[module_id]
        return PlacedModule.model_construct(
            id=module_id,
            memory_mb=self._cluster.memory_of(spec),
            input_kb=spec.input_kb,
            output_kb=max(model.sent_kb(spec) for model in users),
            seconds=self._seconds(module_id),
        )

    def _task(self, task: str, model: ModelSpec) -> PlacedTask:
        return PlacedTask.model_construct(
            id=task,
            rate=self._cluster.rates.rate(task, self._now),
            prefer=tuple(node for node in self._cluster.tasks[task].prefer if node in self._nodes),
            steps=tuple(
                PlacedStep.model_construct(id=name, module=step.module, after=tuple(step.after))
                for name, step in model.steps.items()
            ),
        )


def build_instance(cluster: ClusterState, tasks: Sequence[str], now: float) -> Instance:
    """Returns the instance of tasks on all usable nodes with their full memory; errors as of `SiteInstances.check`."""
    with cluster.indexed():
        return SiteInstances(cluster, now, full_memory(cluster)).of(tasks)


def _model(cluster: ClusterState, task: str) -> ModelSpec:
    model = cluster.model_of(task)
    if task in cluster.refused:
        raise cluster.refused[task]
    if model is None:
        known = ", ".join(sorted(cluster.catalogue.models))
        raise UnknownTaskError(f"task {task} wants the model {cluster.tasks[task].model!r}; known: {known}")
    return model


def _device(cluster: ClusterState, node: str, memory_mb: float) -> Device:
    profile = cluster.profiles[node]
    return Device.model_construct(
        id=node,
        memory_mb=memory_mb,
        latency_ms=profile.latency_ms,
        mbps=profile.mbps,
        prefer=cluster.weight(node),
    )
