"""Design 6.1 a second time, as slowly and plainly as can be, in exact fractions: what the planner is held against."""

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product
from typing import Any

from hypothesis import strategies as st

from s2m3.schemas.instance import Instance, PlacedTask, parse_instance

Placement = dict[str, tuple[str, ...]]


def transfer_s(instance: Instance, kb: float, a: str | None, b: str | None) -> Fraction:
    if a == b:
        return Fraction(0)
    ends = [device for device in instance.devices if device.id in {a, b}]
    latency = sum(Fraction(device.latency_ms) for device in ends)
    return (latency + 8 * Fraction(kb) / min(Fraction(device.mbps) for device in ends)) / 1000


def latency_s(instance: Instance, task: PlacedTask, route: dict[str, str]) -> Fraction:
    """Walks through time: whenever a device is free, it takes what has been ready longest."""
    modules = {module.id: module for module in instance.modules}
    arrivals: dict[str, dict[str | None, Fraction]] = {step.id: {} for step in task.steps}
    for step in task.steps:
        if not step.after:
            sent = transfer_s(instance, modules[step.module].input_kb, task.source, route[step.id])
            arrivals[step.id][None] = sent
    takes = {step.id: Fraction(modules[step.module].seconds[route[step.id]]) for step in task.steps}
    done: dict[str, Fraction] = {}
    busy_until: dict[str, Fraction] = {}
    now = Fraction(0)
    while len(done) < len(task.steps):
        for device in sorted(set(route.values())):
            if busy_until.get(device, Fraction(0)) > now:
                continue
            queue = [
                step
                for step in task.steps
                if route[step.id] == device
                and step.id not in done
                and len(arrivals[step.id]) == max(1, len(step.after))
                and max(arrivals[step.id].values()) <= now
            ]
            if not queue:
                continue
            step = min(queue, key=lambda s: (max(arrivals[s.id].values()), -takes[s.id], s.id))
            done[step.id] = busy_until[device] = now + takes[step.id]
            for other in task.steps:
                if step.id in other.after:
                    sent = transfer_s(instance, modules[step.module].output_kb, device, route[other.id])
                    arrivals[other.id][step.id] = done[step.id] + sent
        later = [t for t in [*busy_until.values(), *(t for a in arrivals.values() for t in a.values())] if t > now]
        if not later:
            break
        now = min(later)
    head = max(task.steps, key=lambda step: done[step.id])
    return done[head.id] + transfer_s(instance, modules[head.module].output_kb, route[head.id], task.source)


def price_s(instance: Instance, task: PlacedTask, route: dict[str, str]) -> Fraction:
    """What preferences count against a route: for each step the places before its device, and the points it lacks."""
    largest = max(Fraction(device.prefer) for device in instance.devices)
    total = Fraction(0)
    for at in route.values():
        before = task.prefer.index(at) if at in task.prefer else len(task.prefer)
        weight = next(Fraction(device.prefer) for device in instance.devices if device.id == at)
        total += Fraction(instance.preference_s) * (before + largest - weight)
    return total


def routes(task: PlacedTask, placement: Placement) -> Iterator[dict[str, str]]:
    for devices in product(*(placement[step.module] for step in task.steps)):
        yield dict(zip([step.id for step in task.steps], devices, strict=True))


def placements(instance: Instance) -> Iterator[Placement]:
    """Every placement that fits."""
    choices = [
        [c for count in range(1, instance.max_replicas + 1) for c in combinations(sorted(module.seconds), count)]
        for module in instance.modules
    ]
    for chosen in product(*choices):
        placement = {module.id: devices for module, devices in zip(instance.modules, chosen, strict=True)}
        if fits(instance, placement):
            yield placement


def fits(instance: Instance, placement: Any) -> bool:
    size = {module.id: Fraction(module.memory_mb) for module in instance.modules}
    return all(
        sum(size[module] for module, devices in placement.items() if device.id in devices) <= device.memory_mb
        for device in instance.devices
    )


def best_objective_s(instance: Instance) -> float | None:
    """The least objective over every placement and every route; None if nothing fits."""
    known: dict[tuple[str, tuple[str, ...]], Fraction] = {}

    def cost(task: PlacedTask, route: dict[str, str]) -> Fraction:
        key = (task.id, tuple(route.values()))
        if key not in known:
            known[key] = latency_s(instance, task, route) + price_s(instance, task, route)
        return known[key]

    best: Fraction | None = None
    for placement in placements(instance):
        total = sum(
            (Fraction(task.weight) * min(cost(task, r) for r in routes(task, placement)) for task in instance.tasks),
            start=Fraction(0),
        )
        best = total if best is None else min(best, total)
    return None if best is None else float(best)


@st.composite
def tiny_instances(draw: st.DrawFn, max_replicas: int = 2) -> Instance:
    """Instances small enough to try everything, of round numbers: ties and queues are common, fitting is not sure.

    Times are whole eighths of seconds, so that float sums are exact and a tie is a tie.
    """
    devices = [f"d{d}" for d in range(draw(st.integers(1, 3)))]
    eighths = st.integers(1, 8).map(lambda n: n / 8)
    modules = [
        {
            "id": f"m{m}",
            "memory_mb": draw(st.integers(1, 6)),
            "input_kb": 125 * draw(st.integers(0, 3)),
            "output_kb": 125 * draw(st.integers(0, 3)),
            "seconds": draw(st.dictionaries(st.sampled_from(devices), eighths, min_size=1)),
        }
        for m in range(draw(st.integers(1, 4)))
    ]
    tasks = []
    for t in range(draw(st.integers(1, 3))):
        names = draw(st.permutations("abcd"))[: draw(st.integers(1, 4))]
        steps: list[dict[str, Any]] = []
        for s, name in enumerate(names):
            after = set(draw(st.lists(st.sampled_from(names[:s]), unique=True))) if s else set()
            if s == len(names) - 1:  # the head follows whatever nobody else follows
                after |= set(names[:s]) - {before for step in steps for before in step["after"]}
            module = f"m{draw(st.integers(0, len(modules) - 1))}"
            steps.append({"id": name, "module": module, "after": sorted(after)})
        source = draw(st.sampled_from([None, *devices]))
        tasks.append({"id": f"t{t}", "source": source, "weight": draw(st.integers(0, 3)), "steps": steps})
    return parse_instance(
        {
            "devices": [
                {
                    "id": device,
                    "memory_mb": draw(st.integers(2, 12)),
                    "latency_ms": 125 * draw(st.integers(0, 2)),
                    "mbps": draw(st.sampled_from([1, 2, 4, 8])),
                }
                for device in devices
            ],
            "modules": modules,
            "tasks": tasks,
            "max_replicas": draw(st.integers(1, max_replicas)),
        }
    )


def home_instance(seed: int, *, max_replicas: int = 1) -> Instance:
    """A random instance of 12 modules, 6 devices and 8 tasks, too large to try everything."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    sizes = [round(chance.uniform(20, 900)) for _ in range(12)]
    speeds = [chance.choice([1, 2, 4, 8]) for _ in range(6)]
    tasks = []
    for t in range(8):
        used = chance.sample(range(12), chance.choice([2, 3, 3, 4]))
        *encoders, head = [{"id": f"s{s}", "module": f"m{m}"} for s, m in enumerate(used)]
        steps = [*encoders, {**head, "after": [step["id"] for step in encoders]}]
        weight = round(chance.uniform(0.2, 3), 2)
        tasks.append({"id": f"t{t}", "source": f"d{chance.randrange(6)}", "weight": weight, "steps": steps})
    return parse_instance(
        {
            "devices": [
                {
                    "id": f"d{d}",
                    "memory_mb": max(sizes) + round(sum(sizes) * 0.3 * chance.random()),
                    "latency_ms": round(chance.uniform(0.5, 20), 1),
                    "mbps": chance.choice([10, 50, 100, 300, 1000]),
                }
                for d in range(6)
            ],
            "modules": [
                {
                    "id": f"m{m}",
                    "memory_mb": size,
                    "input_kb": round(chance.uniform(1, 600)),
                    "output_kb": round(chance.uniform(1, 100)),
                    "seconds": {f"d{d}": round(chance.uniform(0.2, 3) / speeds[d], 4) for d in range(6)},
                }
                for m, size in enumerate(sizes)
            ],
            "tasks": tasks,
            "max_replicas": max_replicas,
        }
    )
