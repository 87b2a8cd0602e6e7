"""A plan compared: where modules go by the greedy, at random and by us, over the speed of a link. Needs no site.

Run: python examples/plan_compared.py [instance.json]
The same as a command: s2m3 plan home.json --compare greedy,random,auto --sweep devices.pi5.mbps=5,50,500
"""

import sys
from pathlib import Path

from s2m3.planner.solving.compare import cases
from s2m3.schemas.instance import read_document

FILE = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("home.json")

for case in cases(
    read_document(FILE),
    FILE.name,
    methods=["greedy", "random", "auto"],
    sweeps=[("devices.pi5.mbps", (5, 50, 500))],
):
    if case.solution is None:
        print(case.values, case.method, case.error)
        continue
    routes = ", ".join(f"{name} {1000 * task.latency_s:.0f} ms" for name, task in case.solution.tasks.items())
    proven = " (proven)" if case.solution.proven_optimal else ""
    print(f"{case.values} {case.method}: {case.solution.objective_s:.3f} s{proven}: {routes}")
