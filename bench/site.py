"""The running planner on a simulated site: many nodes that speak the protocol, a real broker and planner.

Starts Mosquitto, `s2m3 planner`, and nodes in a few processes (bench/simulated_nodes.py: they join, load, report, die
by last will, and compute nothing), adds tasks that share modules, and measures what the site's users would see:

- all tasks added in one go: seconds until a plain request of each would be answered (a ready copy of each step and a
  gateway);
- nothing changes, apart from heartbeats and reports without news, and the planner has looked for better places: the
  planner's CPU, and the documents it publishes;
- one task added, one node lost, a tenth of the nodes lost at once: seconds until the last route that names a lost node
  has changed, and how many other routes changed;
- the planner's memory, and how often it lost its connection;
- requesters that use no task, 10, 100, 1,000: memory and CPU of each.

Of several sizes it prints a table at the end, with each figure of the largest site by that of the smallest, and what a
unit of change costs the planner: a task that is added, a route that names a lost node. There 1 is linear growth.

With `--scarce` each node has room for one module: of more modules than nodes (1000x1000x2000), some tasks do not fit.

What it leaves out: agents' subscriptions among themselves, and requests. Writes bench/results/site.json.

Run: python bench/site.py [--sizes 100x100x30,300x300x90,1000x1000x300] (nodes x tasks x modules)
"""

import argparse
import json
from pathlib import Path

from simulation import REPORTS_PER_S, Size, measure
from site_growth import growth
from tables import measured_on

from s2m3 import logs

RESULTS = Path(__file__).parent / "results" / "site.json"
_SIZES = "100x100x30,300x300x90,1000x1000x300"


def main() -> None:
    """Measures every size and prints the figures of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--sizes", default=_SIZES, help="nodes x tasks x modules, with commas")
    parser.add_argument("--reports", type=float, default=REPORTS_PER_S, help="reports without news per second")
    parser.add_argument("--idle-s", type=float, default=60.0, help="how long the planner is measured at rest")
    parser.add_argument("--scarce", action="store_true", help="room for one module on each node: not all tasks fit")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the file of results")
    options = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    rows = []
    for text in options.sizes.split(","):
        nodes, tasks, modules = map(int, text.split("x"))
        size = Size(nodes, tasks, modules, is_scarce=options.scarce)
        figures = measure(size, reports_per_s=options.reports, idle_s=options.idle_s)
        rows.append({"nodes": size.nodes, "tasks": size.tasks, "modules": size.modules, **figures})
        print(f"{size.nodes} nodes, {size.tasks} tasks, {size.modules} modules")
        for name, value in figures.items():
            print(f"  {name:24} {value}", flush=True)
    print(growth(rows).markdown())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"measured": measured_on(), "sizes": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
