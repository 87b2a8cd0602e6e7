"""Quality and speed of the planner: against the optimum, on the paper's models and claims, and at scale.

Prints tables with ratios and writes bench/results/placement.json. Times are those of this machine.

Run: python bench/placement.py [--instances N]
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import paper_claims
import paper_models as paper
from tables import measured_on

from s2m3.planner.solving.replan import replan
from s2m3.planner.solving.solve import Solution, solve
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance, parse_instance

RESULTS = Path(__file__).parent / "results" / "placement.json"
_SAME = 1 + 1e-9
#: Probabilities that a device can run a module, that a task is a chain, that a round varies the worst known instance.
_ABLE, _CHAINED, _CLIMBING = 0.9, 0.2, 0.8
#: Kinds of devices: (relative speed, Mbit/s).
_KINDS = ((1, 20), (2, 50), (4, 100), (10, 300), (20, 1000))


def random_document(
    chance: random.Random, *, modules: int, devices: int, tasks: int, roomy: float, max_replicas: int = 1
) -> dict[str, Any]:
    """Returns a random instance: mixed sizes, speeds, links and sources; total memory is about `roomy` x modules."""
    sizes = [round(chance.choice([chance.uniform(20, 100), chance.uniform(100, 1200)]), 1) for _ in range(modules)]
    kinds = [chance.choice(_KINDS) for _ in range(devices)]
    names = [f"d{d}" for d in range(devices)]
    share = sum(sizes) * roomy / devices
    module_list = []
    for m, size in enumerate(sizes):
        base = chance.uniform(0.05, 3)
        able = [d for d in range(devices) if chance.random() < _ABLE] or [0]
        module_list.append(
            {
                "id": f"m{m}",
                "memory_mb": size,
                "input_kb": round(chance.uniform(1, 600), 1),
                "output_kb": round(chance.uniform(1, 100), 1),
                "seconds": {names[d]: base / kinds[d][0] * chance.uniform(0.9, 1.1) for d in able},
            }
        )
    task_list = []
    for t in range(tasks):
        used = chance.sample(range(modules), chance.choice([2, 3, 3, 4]))
        *encoders, head = [{"id": f"s{s}", "module": f"m{m}"} for s, m in enumerate(used)]
        chain = chance.random() < _CHAINED
        after = [encoders[-1]["id"]] if chain else [step["id"] for step in encoders]
        for one, following in pairwise(encoders):
            following.update({"after": [one["id"]]} if chain else {})  # type: ignore[dict-item]
        weight = round(chance.uniform(0.2, 3), 2)
        steps = [*encoders, {**head, "after": after}]
        task_list.append({"id": f"t{t}", "source": chance.choice(names), "weight": weight, "steps": steps})
    return {
        "devices": [
            {
                "id": names[d],
                "memory_mb": round(share * chance.uniform(0.5, 1.5), 1),
                "latency_ms": round(chance.uniform(0.5, 20), 1),
                "mbps": kind[1],
            }
            for d, kind in enumerate(kinds)
        ],
        "modules": module_list,
        "tasks": task_list,
        "max_replicas": max_replicas,
    }


def _summary(ratios: Sequence[float]) -> dict[str, float]:
    ordered = sorted(ratios)
    return {
        "optimal": sum(ratio <= _SAME for ratio in ordered) / len(ordered),
        "mean": statistics.mean(ordered),
        "median": ordered[len(ordered) // 2],
        "worst": ordered[-1],
    }


def _line(name: str, found: dict[str, float]) -> str:
    shown = f"optimal {found['optimal']:6.1%}, mean {found['mean']:.4f}, median {found['median']:.4f}"
    return f"  {name:<22} {shown}, worst {found['worst']:.4f} times the optimum"


def against_exact(instances: Iterable[Instance]) -> dict[str, Any]:
    """Returns the objectives of greedy (both keys) and of auto within 1 s, as ratios to the exact optimum."""
    ratios: dict[str, list[float]] = {"greedy by memory": [], "greedy by compute": [], "auto": []}
    seconds: list[float] = []
    proven = unsolved = infeasible = 0
    for instance in instances:
        try:
            auto = solve(instance)
        except NoCapacityError:
            infeasible += 1
            continue
        best = auto if auto.proven_optimal else solve(instance, method="exact")
        unsolved += not best.proven_optimal
        proven += auto.proven_optimal
        seconds.append(auto.solve_s)
        ratios["auto"].append(auto.objective_s / best.objective_s)
        for key in ("memory", "compute"):
            found = solve(instance, method="greedy", key=key)
            ratios[f"greedy by {key}"].append(found.objective_s / best.objective_s)
    result: dict[str, Any] = {name: _summary(values) for name, values in ratios.items()}
    result["auto proven within 1 s"] = proven / len(seconds)
    result["auto seconds"] = {"median": statistics.median(seconds), "most": max(seconds)}
    result["instances"], result["infeasible"], result["exact unproven"] = len(seconds), infeasible, unsolved
    for name in ratios:
        print(_line(name, result[name]))
    print(
        f"  auto proven within 1 s: {result['auto proven within 1 s']:.1%} of {len(seconds)}; "
        f"median {result['auto seconds']['median']:.3f} s, most {result['auto seconds']['most']:.3f} s"
    )
    return result


def adversarial(rounds: int) -> dict[str, Any]:
    """Returns the worst ratio of greedy to auto that a hill climb over small instances finds, and auto's to exact."""
    chance = random.Random(7)  # noqa: S311  # not a secret
    worst: tuple[float, dict[str, Any]] = (0.0, {})
    for _ in range(rounds):
        if worst[1] and chance.random() < _CLIMBING:
            document = deepcopy(worst[1])
            for part in chance.sample([*document["devices"], *document["modules"]], 2):
                part["memory_mb"] = round(part["memory_mb"] * chance.uniform(0.6, 1.6), 1)
                for device in part.get("seconds", {}):
                    part["seconds"][device] *= chance.uniform(0.7, 1.4)
        else:
            document = random_document(chance, modules=6, devices=3, tasks=4, roomy=1.6)
        instance = parse_instance(document)
        try:
            ratio = solve(instance, method="greedy").objective_s / solve(instance).objective_s
        except NoCapacityError:
            continue
        worst = max(worst, (ratio, document), key=lambda pair: pair[0])
    instance = parse_instance(worst[1])
    auto = solve(instance).objective_s / solve(instance, method="exact").objective_s
    print(f"  after {rounds} rounds: greedy {worst[0]:.2f} times the optimum; auto there {auto:.6f}")
    return {"rounds": rounds, "greedy": worst[0], "auto": auto, "instance": worst[1]}


def claims() -> dict[str, Any]:
    """Returns the paper's memory claims with counted parameters, in both conventions, and latency against a cloud."""
    print("  one device's peak when split, 1 - largest module / whole model (M parameters):")
    split = paper_claims.split_savings()
    for name, saved in split.items():
        full, without = saved.values()
        print(f"    CLIP {name:<9} full towers {full:6.1%}   without the token embedding {without:6.1%}")
    print("  all of four tasks when shared, 1 - shared / unshared (retrieval, encoder VQA, alignment, classification):")
    shared = {}
    for convention, (separately, once) in paper_claims.shared_millions().items():
        shared[convention] = 1 - once / separately
        print(f"    {convention:<25} {separately:.0f} M -> {once:.0f} M: {shared[convention]:.1%} less")
    print("  latency per set of tasks: at home (no server) against everything in the cloud behind a WAN:")
    against = {}
    for suite, (home, cloud) in paper_claims.home_against_cloud().items():
        against[suite] = {"home_s": home, "cloud_s": cloud, "ratio": home / cloud}
        print(f"    {suite:<20} home {home:7.3f} s   cloud {cloud:7.3f} s   home is {home / cloud:.2f} times the cloud")
    return {"split": split, "shared": shared, "cloud": against}


def scale(devices: int) -> dict[str, Any]:
    """Returns times and peak memory for 1,000 modules, 1,000 tasks and many devices, and of a replan after a loss."""
    chance = random.Random(1)  # noqa: S311  # not a secret
    document = random_document(chance, modules=1000, devices=devices, tasks=1000, roomy=4.0)
    for device in document["devices"]:
        device["memory_mb"] += 1200  # every module fits somewhere
    instance = parse_instance(document)
    greedy = solve(instance, method="greedy")
    began = time.perf_counter()
    auto = solve(instance)
    auto_s = time.perf_counter() - began
    moved, again_s = _replan_without_fullest(document, auto)
    return {
        "devices": devices,
        "greedy_s": greedy.solve_s,
        "auto_s": auto_s,
        "greedy_over_bound": greedy.objective_s / greedy.lower_bound_s,
        "auto_over_bound": auto.objective_s / auto.lower_bound_s,
        "replan_s": again_s,
        "lost_modules": moved[0],
        "moved_modules": moved[1],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def _replan_without_fullest(document: dict[str, Any], plan: Solution) -> tuple[tuple[int, int], float]:
    """Removes the device with the most modules' memory and replans; returns ((lost, moved modules), seconds)."""
    lost = max(plan.memory_mb, key=lambda device: plan.memory_mb[device])
    document["devices"] = [device for device in document["devices"] if device["id"] != lost]
    for module in document["modules"]:
        module["seconds"].pop(lost, None)
    for task in document["tasks"]:
        if task["source"] == lost:
            del task["source"]
    left = parse_instance(document)
    began = time.perf_counter()
    again = replan(left, plan.placement)
    seconds = time.perf_counter() - began
    moved = sum(again.placement[module] != devices for module, devices in plan.placement.items())
    return (sum(lost in devices for devices in plan.placement.values()), moved), seconds


def _scale_in_subprocess(devices: int) -> dict[str, Any]:
    """Runs `scale` in a separate process, so that the peak memory is that of this size alone."""
    command = [sys.executable, __file__, "--scale", str(devices)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"  {devices:>6} devices: greedy {found['greedy_s']:.2f} s ({found['greedy_over_bound']:.3f} x bound), auto "
        f"{found['auto_s']:.2f} s ({found['auto_over_bound']:.3f} x bound), peak {found['peak_mb']:.0f} MB; after a "
        f"loss {found['replan_s'] * 1000:.0f} ms, {found['moved_modules']} moved of {found['lost_modules']} lost"
    )
    return found


def main() -> None:
    """Runs all parts of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100, help="random instances of each kind")
    parser.add_argument("--scale", type=int, help="only part d at this many devices, as JSON")
    options = parser.parse_args()
    if options.scale:
        print(json.dumps(scale(options.scale)))
        return
    results: dict[str, Any] = {}
    for replicas in (1, 2):
        print(f"(a) random, 12 modules x 6 devices x 8 tasks, max_replicas {replicas}")
        chance = random.Random(replicas)  # noqa: S311  # not a secret
        made = (
            parse_instance(random_document(chance, modules=12, devices=6, tasks=8, roomy=1.7, max_replicas=replicas))
            for _ in range(options.instances)
        )
        results[f"random, max_replicas {replicas}"] = against_exact(made)
    print("(a) adversarial, 6 modules x 3 devices x 4 tasks: a hill climb for instances that hurt the greedy")
    results["adversarial"] = adversarial(3 * options.instances)
    print("(b) 95 instances of the paper's models: 19 sets of tasks x 5 testbeds. Assumed:")
    for line in paper.assumptions():
        print(f"      {line}")
    results["paper-like"] = against_exact(instance for _, instance in paper.paper_like())
    print("(c) the paper's claims")
    results["claims"] = claims()
    print("(d) scale: 1,000 modules, 1,000 tasks of 2 to 4 steps")
    results["scale"] = [_scale_in_subprocess(devices) for devices in (1000, 10_000)]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results["measured"] = measured_on([1, 2, 7])
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
