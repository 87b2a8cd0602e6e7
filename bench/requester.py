"""One requester on a site, for bench/site.py: how much memory and CPU it takes as long as it uses so many tasks.

It subscribes to the route of each task as its first request does, and then only listens: the simulated nodes compute
nothing. Prints a JSON document: tasks, nodes that their routes name, resident memory in MB, part of a core.

Run: python bench/requester.py --port 1883 --tasks t0,t1,t2 [--seconds 10]
"""

import argparse
import gc
import json
import threading
import time
from functools import partial

import psutil

from s2m3 import logs
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.schemas.settings import BrokerSettings

_WAIT_S, _LOOK_S = 60.0, 0.1


def measure(settings: BrokerSettings, tasks: list[str], seconds: float) -> dict[str, float]:
    """Returns what a requester takes that uses these tasks, measured for so many seconds once it knows all routes."""
    loop, pause = Loop("requester"), threading.Event()
    link = Link(settings, "s2m3-client-measured", loop)
    dispatcher = Dispatcher(link, loop, "measured")
    loop.start()
    link.start()
    dispatcher.start()
    for task in tasks:
        loop.call(partial(dispatcher.follow, task))
    deadline = time.monotonic() + _WAIT_S
    while len(routes := dispatcher.tasks()) < len(tasks) and time.monotonic() < deadline:
        pause.wait(_LOOK_S)
    gc.collect()
    process, began = psutil.Process(), time.monotonic()
    before = process.cpu_times()
    pause.wait(seconds)
    after, took = process.cpu_times(), time.monotonic() - began
    figures = {
        "tasks": len(routes),
        "nodes": len({r.node for doc in routes.values() for step in doc.steps.values() for r in step.replicas}),
        "mb": round(process.memory_info().rss / 1e6, 1),
        "cpu_share": round((after.user + after.system - before.user - before.system) / took, 4),
    }
    link.stop()
    loop.stop()
    return figures


def main() -> None:
    """Measures one requester and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--tasks", default="", help="the tasks that it uses, with commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long it is measured")
    options = parser.parse_args()
    logs.configure(verbose=False, quiet=True)
    settings = BrokerSettings(host="127.0.0.1", port=options.port)
    print(json.dumps(measure(settings, [task for task in options.tasks.split(",") if task], options.seconds)))


if __name__ == "__main__":
    main()
